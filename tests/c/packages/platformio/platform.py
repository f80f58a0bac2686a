"""A platform without packages: the compiler is on the path."""

from platformio.public import PlatformBase


class CompilersPlatform(PlatformBase):
    pass
