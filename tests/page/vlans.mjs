// Two sessions with the same endpoints, on VLANs 10 and 20, of three packets each.

import { assert, open, ready, retrocap, run, start, until } from './harness.mjs';

const { browser, context } = await start();
const page = await ready(await open(context));

await run({
  async each_session_has_its_own_packets() {
    const flows = retrocap('flows', '--json').trim().split('\n').map((line) => JSON.parse(line));
    assert.deepEqual(flows.map((flow) => flow.vlan).sort(), [10, 20]);
    for (const { id, vlan } of flows) {
      await page.evaluate((of) => { location.hash = `session=${of}&tab=conversation`; }, id);
      await until('what was said', async () => (await page.locator('#said-bytes').allTextContents()).join().includes(`vlan ${vlan}`));
      assert.equal((await page.locator('#said-bytes').textContent()).match(/vlan \d+/g).filter((text) => text !== `vlan ${vlan}`).length, 0);
      await page.locator('#tab-packets').click();
      await until('its packets', async () => (await page.locator('#packets .lines li').count()) === 3);
    }
    assert.deepEqual(page.wrong, []);
    await browser.close();
  },
});
