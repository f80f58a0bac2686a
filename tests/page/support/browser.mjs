// Chromium, driven by playwright-core.

import { createRequire } from "node:module";

const require = createRequire(process.env.BROWSER_MODULES);
const { chromium } = require("playwright-core");

/** The source of axe-core, to be run in a page. */
export const axe = () => require("axe-core").source;

/** Starts the browser that `cargo xtask test` has found. */
export const start = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM,
    headless: true,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });

/** A page on which every error, every complaint and every request is kept. */
export async function watched(browser, options = {}) {
  const context = await browser.newContext({ acceptDownloads: true, ...options });
  const page = await context.newPage();
  const [errors, requests] = [[], []];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("request", (request) => requests.push(request.url()));
  return { context, page, errors, requests };
}
