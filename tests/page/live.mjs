// A recorder that gets 10,000 packets a second, is stopped, goes away and comes back; two tabs; a link that was used.

import { createInterface } from 'node:readline';
import { assert, counts, link, open, ready, run, start, until } from './harness.mjs';

const { browser, context } = await start();
const url = link();
const page = await ready(await open(context, url));
const replies = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
// Asks the test that started this one to do something to the recorder.
async function ask(what) {
  console.log(`ask ${what}`);
  const { value } = await replies.next();
  return value;
}
const all = async () => (await counts(page))[1];

await run({
  async new_traffic_is_followed() {
    for (let i = 0; i < 3; i += 1) {
      const before = await all();
      await until('new sessions', async () => (await all()) > before);
    }
  },

  async pausing_holds_the_list_and_following_catches_up() {
    await page.locator('#live').click();
    await page.waitForTimeout(1200);
    const held = await all();
    await page.waitForTimeout(2500);
    assert.equal(await all(), held);
    await page.locator('#live').click();
    await until('it catches up', async () => (await all()) > held);
  },

  async nothing_is_missing_after_the_laptop_slept() {
    // A page that is not seen does not ask; when it is seen again, it has all that came meanwhile.
    const other = await context.newPage();
    await page.evaluate(() => { Object.defineProperty(document, 'hidden', { configurable: true, get: () => true }); });
    await page.waitForTimeout(2500);
    await ask('end-of-traffic');
    await page.evaluate(() => { delete document.hidden; document.dispatchEvent(new Event('visibilitychange', { bubbles: true })); });
    await other.close();
    const expected = Number(await ask('sessions'));
    await until(`${expected} sessions`, async () => (await all()) === expected);
  },

  async a_second_tab_works_and_a_used_link_does_not() {
    const second = await ready(await open(context, new URL(url).origin));
    assert.equal((await counts(second))[1], await all(), 'the token of the first tab');
    await second.close();
    const stranger = await start();
    const used = await open(stranger.context, url);
    await used.locator('#trouble').waitFor();
    assert.match(await used.locator('#trouble').textContent(), /has ended.*retrocap page/);
    await stranger.browser.close();
  },

  async a_recorder_that_is_stopped_and_goes_on() {
    await ask('stop');
    await until('it is said', async () => /does not answer/.test(await page.locator('#trouble').textContent()), 40);
    await ask('continue');
    await until('it is forgotten', async () => !(await page.locator('#trouble').isVisible()), 60);
  },

  async a_recorder_that_goes_away_and_comes_back() {
    await ask('kill');
    await until('it is said', async () => /does not answer/.test(await page.locator('#trouble').textContent()), 40);
    assert.ok((await page.locator('.row').count()) > 0, 'what was known is still there');
    await ask('restart');
    await until('a new link is needed', async () => /retrocap page/.test(await page.locator('#trouble').textContent()), 60);
    await ready(await open(context, link()));
    await ready(page);
    assert.equal(await page.locator('#trouble').isVisible(), false, 'the first tab goes on with the new session');
  },

  async nothing_went_wrong() {
    assert.deepEqual(page.wrong.filter((text) => !/ERR_CONNECTION|Failed to fetch/.test(text)), []);
    await browser.close();
  },
});
