// Names that hosts of the network choose, and gaps: all of it is text, and what is missing is said.

import { assert, open, ready, run, start, until } from './harness.mjs';

const { browser, context } = await start();
const page = await ready(await open(context));
const evil = '<img/src=x/onerror=alert(1)>';

// Chosen by another host: no element comes of it, and no character that turns the reading direction is on the page.
async function harmless(where) {
  const found = await page.evaluate(() => ({
    images: document.images.length,
    hidden: /[\u202a-\u202e\u2066-\u2069\u200b\u2028\u0000-\u0008\u009b]/.test(document.body.innerText),
    titles: [...document.querySelectorAll('[title],[aria-label]')].some((node) => /[\u202a-\u202e\u2066-\u2069]/.test(`${node.title}${node.getAttribute('aria-label')}`)),
  }));
  assert.deepEqual(found, { images: 0, hidden: false, titles: false }, where);
}

await run({
  async names_are_text() {
    await until('names come', async () => (await page.locator('#grid').textContent()).includes(evil));
    await harmless('the list');
    const rows = await page.locator('.row:not([hidden])').count();
    for (let i = 0; i < rows; i += 1) {
      await page.locator('.row:not([hidden])').nth(i).click();
      await page.locator('#tab-packets').click();
      await page.locator('#packets .lines li').first().waitFor();
      for (const tab of ['packets', 'conversation', 'files', 'about']) {
        await page.locator(`#tab-${tab}`).click();
        await until(tab, async () => !/Reading/.test(await page.locator(`#${tab}`).textContent()));
        await harmless(`session ${i}, ${tab}`);
      }
      await page.locator('#tab-files').click();
      await harmless(`session ${i}, files`);
    }
    await page.locator('#tab-hunt').click();
    await page.locator('#rules').fill('onerror');
    await page.locator('#hunt-start').click();
    await until('matches', async () => (await page.locator('#matches li').count()) > 0);
    await harmless('hunt');
  },

  async an_address_of_the_page_is_text_too() {
    await page.evaluate((text) => { location.hash = new URLSearchParams({ q: text, only: `host:${text}`, session: text, by: text, view: text, sort: text }); }, evil);
    await page.waitForTimeout(1000);
    await harmless('the address');
  },

  async nothing_went_wrong() {
    assert.deepEqual(page.wrong, []);
    await browser.close();
  },
});
