// The tarball, installed as a user installs it.

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** The tarball that `npm pack` has made. */
export const tarball = process.env.TARBALL;

/** Where projects are made. */
const work = process.env.WORK;

const app = fileURLToPath(new URL("app/", import.meta.url));

/** Runs a program in a folder and gives what it printed; what it said is in the error where it fails. */
export function run(folder, program, ...args) {
  try {
    return execFileSync(program, args, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, NODE_ENV: "production", NO_COLOR: "1" } });
  } catch (error) {
    throw new Error(`${program} ${args.join(" ")}: ${error.message}\n${error.stdout}\n${error.stderr}`);
  }
}

/** Makes a project with the tarball and packages of the registry installed, and the application's files. */
export function project(name, packages = [], files = {}) {
  const folder = join(work, name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  cpSync(app, folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name, private: true, type: "module" }));
  for (const [file, text] of Object.entries(files)) {
    writeFileSync(join(folder, file), text);
  }
  run(folder, "npm", "install", "--no-audit", "--no-fund", "--loglevel=error", tarball, ...packages);
  return folder;
}

/** Where a project's program lies. */
export const bin = (folder, program) => join(folder, "node_modules/.bin", program);

/** What the application must come to: the identity as every weight, so the first token sees itself alone. */
export const FIRST = Array.from({ length: 8 }, (_, i) => Math.fround(Math.sin(i)));
