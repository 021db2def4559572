// Starts Chromium and opens a page of a recorder: what the tests of the page have in common.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

export { assert };

const ARGUMENTS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const TYPES = { html: 'text/html; charset=utf-8', js: 'text/javascript; charset=utf-8', css: 'text/css; charset=utf-8', svg: 'image/svg+xml' };
const { RETROCAP, RETROCAP_SOCKET, RETROCAP_CHROMIUM } = process.env;

// A verb of the command line that asks the recorder.
export function retrocap(...words) {
  return execFileSync(RETROCAP, [...words, '--socket', RETROCAP_SOCKET], { stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 1 << 28 }).toString();
}

export const link = () => JSON.parse(retrocap('page', '--json')).url;

export async function start(options = {}) {
  const browser = await chromium.launch({ executablePath: RETROCAP_CHROMIUM || '/usr/bin/chromium', args: ARGUMENTS });
  const context = await browser.newContext({ viewport: { width: 1280, height: 720 }, acceptDownloads: true, ...options });
  // RETROCAP_PAGE_FILES=crates/page/files tries changed files of the page without a build.
  const files = process.env.RETROCAP_PAGE_FILES;
  if (files) {
    await context.route(/\/(page\/[a-z.]+)?(#.*)?$/, async (route) => {
      const name = new URL(route.request().url()).pathname.replace(/^\/(page\/)?/, '') || 'index.html';
      if (!existsSync(`${files}/${name}`)) return route.continue();
      const response = await route.fetch().catch(() => null);
      if (!response) return route.abort();
      const headers = { ...response.headers() };
      delete headers['content-encoding'];
      return route.fulfill({ status: 200, headers: { ...headers, 'content-type': TYPES[name.split('.').pop()] }, body: readFileSync(`${files}/${name}`) });
    });
  }
  await context.grantPermissions(['clipboard-read', 'clipboard-write']).catch(() => {});
  return { browser, context };
}

// Opens a page and notes what must not happen there: errors, and requests to anywhere else.
export async function open(context, url = link(), expected = /^$/) {
  const page = await context.newPage();
  const origin = new URL(url).origin;
  page.wrong = [];
  page.on('pageerror', (error) => page.wrong.push(`error: ${error.stack || error.message}`));
  page.on('console', (message) => {
    if (message.type() === 'error' && !/Failed to load resource/.test(message.text()) && !expected.test(message.text())) page.wrong.push(`console: ${message.text()}`);
  });
  page.on('request', (request) => {
    if (!request.url().startsWith(`${origin}/`) && !request.url().startsWith(`blob:${origin}/`)) page.wrong.push(`request: ${request.url()}`);
  });
  page.on('dialog', (dialog) => { page.wrong.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  await page.goto(url);
  return page;
}

export async function ready(page) {
  await page.locator('.row:not([hidden])').first().waitFor();
  await page.locator('#facts dd').first().waitFor();
  return page;
}

// The sessions that the page says it shows: [shown, all].
export async function counts(page) {
  const title = await page.locator('#understood').getAttribute('title');
  return title.split(' of ').map((text) => Number(text.replaceAll(',', '')));
}

export async function until(what, holds, seconds = 20) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const is = await holds();
    if (is) return is;
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

// Runs the named tests one after another, and says which one failed.
export async function run(tests) {
  const only = process.argv[2];
  let failed = 0, passed = 0;
  for (const [name, test] of Object.entries(tests)) {
    if (only && !name.includes(only)) continue;
    try {
      await test();
      passed += 1;
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`not ok ${name}\n${error.stack}`);
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}
