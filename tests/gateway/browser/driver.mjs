// Drives Chromium for the tests. Reads one command per line, {id, open: url} or {id, call: name, page: id of open, args}, and writes one line per
// answer: {id, event} for what a call emits, {id, result} or {id, error} at its end. Ends, and the browser with it, when its input ends.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [executablePath, profile, tools] = process.argv.slice(2);
const { chromium } = createRequire(`${tools}/`)("playwright-core");
const quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
// Tests run as root in CI, where Chromium's own sandbox cannot be had; the pages are ours. The certificates are made by the tests.
const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  chromiumSandbox: false,
  ignoreHTTPSErrors: true,
  args: quiet,
});
const pages = new Map();
const write = (line) => process.stdout.write(JSON.stringify(line) + "\n");

async function open({ id, open: url }) {
  const page = await context.newPage();
  await page.exposeFunction("emitLine", (call, event) => write({ id: call, event }));
  await page.goto(url);
  await page.waitForFunction("window.treadle !== undefined");
  pages.set(id, page);
}

function call({ id, call: name, page, args }) {
  return pages.get(page).evaluate(([id, name, args]) => window.treadle[name](args, (value) => window.emitLine(id, value)), [id, name, args]);
}

write({ id: 0, result: context.browser()?.version() ?? "" });
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  (command.open ? open(command) : call(command)).then(
    (result) => write({ id: command.id, result: result ?? null }),
    (error) => write({ id: command.id, error: String(error) }),
  );
}
await context.close();
