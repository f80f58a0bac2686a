"""Builds a program with the compiler that the project names."""

from SCons.Script import Default, DefaultEnvironment

env = DefaultEnvironment()
compiler = env.GetProjectOption("custom_compiler")
env.Replace(CC=compiler, LINK=compiler, PROGNAME="program")
env.Append(CCFLAGS=env.GetProjectOption("custom_machine").split())
env.Append(LINKFLAGS=env.GetProjectOption("custom_machine").split())
env.Append(LINKFLAGS=env.GetProjectOption("custom_link").split())
Default(env.BuildProgram())
