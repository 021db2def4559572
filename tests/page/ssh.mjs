// A connection of SSH: its fingerprints are those of the messages.

import { assert, open, ready, retrocap, run, start } from './harness.mjs';

const { browser, context } = await start();
const page = await ready(await open(context));

await run({
  async fingerprints_of_both_sides_are_shown() {
    const prints = retrocap('get', '--messages', '--json').trim().split('\n').map((line) => JSON.parse(line).fields);
    const [client, server] = [prints.find((fields) => fields.hassh).hassh, prints.find((fields) => fields.hassh_server).hassh_server];
    await page.locator('.row').first().click();
    await page.locator('#tab-about').click();
    await page.locator('#messages').waitFor();
    const about = await page.locator('#about').textContent();
    assert.ok(about.includes(`HASSH (originator)${client}`), about);
    assert.ok(about.includes(`HASSH of the server (responder)${server}`), about);
    assert.deepEqual(page.wrong, []);
    await browser.close();
  },
});
