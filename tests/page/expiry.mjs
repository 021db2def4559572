// Links and sessions that nobody used for the time that the recorder allows: twelve seconds here.

import { assert, link, open, ready, retrocap, run, start, until } from './harness.mjs';

const { browser, context } = await start();
const trouble = (page) => page.locator('#trouble');
const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

await run({
  async the_time_is_said_with_the_link() {
    assert.equal(JSON.parse(retrocap('page', '--json')).idle_s, 12);
  },

  async a_link_that_was_not_used_in_time_opens_nothing() {
    const url = link();
    await wait(13);
    const page = await open(context, url);
    await trouble(page).waitFor();
    assert.match(await trouble(page).textContent(), /has ended.*sudo retrocap page/);
    assert.equal(await page.locator('.row').count(), 0);
    assert.deepEqual(page.wrong, []);
    await page.close();
  },

  async a_page_that_nobody_looked_at_ends_and_a_new_link_continues_it() {
    const page = await ready(await open(context));
    await wait(13);
    assert.equal(await trouble(page).isVisible(), false, 'a page in view uses its session');
    await page.evaluate(() => { Object.defineProperty(document, 'hidden', { configurable: true, get: () => true }); });
    // It may be asking now.
    await wait(19);
    await page.evaluate(() => { delete document.hidden; document.dispatchEvent(new Event('visibilitychange', { bubbles: true })); });
    await until('it says so', async () => /retrocap page/.test(await trouble(page).textContent()));
    assert.equal(await page.locator('#recording').textContent(), 'Not connected');
    assert.ok((await page.locator('.row:not([hidden])').count()) > 0, 'what was known is still shown');
    await ready(await open(context));
    await until('it goes on', async () => !(await trouble(page).isVisible()));
    assert.deepEqual(page.wrong, []);
  },

  async nothing_is_left() {
    await browser.close();
  },
});
