// A session of which bytes are missing.

import { assert, open, ready, run, start, until } from './harness.mjs';

const { browser, context } = await start();
const page = await ready(await open(context));

await run({
  async gaps_are_red_and_say_how_much_and_why() {
    await page.locator('.row').first().click();
    await page.locator('#tab-conversation').click();
    await until('gaps', async () => (await page.locator('#said-bytes .gap').count()) > 0);
    assert.match(await page.locator('#said-bytes .gap').first().textContent(), /bytes of the (originator|responder) are missing here \(snaplen\)/);
    const [red, green] = await page.locator('#said-bytes .gap').first().evaluate((node) => getComputedStyle(node).color.match(/\d+/g).map(Number));
    assert.ok(red > 2 * green, 'red');
    assert.match(await page.locator('#conversation .note').textContent(), /\d+ gaps?/);
    assert.deepEqual(page.wrong, []);
    await browser.close();
  },
});
