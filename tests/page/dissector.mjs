// The dissector that an administrator installed, and what may run code that is made from text: its worker, and nothing else.

import { assert, open, ready, run, start, until } from './harness.mjs';

const { browser, context } = await start();
const policies = new Map();
context.on('response', async (response) => policies.set(new URL(response.url()).pathname, response.headers()['content-security-policy'] || ''));
const page = await ready(await open(context));

await run({
  async a_packet_has_a_tree_of_all_its_layers() {
    await page.locator('.row').first().click();
    // Wireshark in WebAssembly has 19 MB and is compiled once.
    await until('the tree', async () => (await page.locator('#dissected').count()) > 0, 120);
    const tree = await page.locator('#dissected').textContent();
    for (const layer of ['Frame 1', 'Ethernet II', 'Internet Protocol Version 4', 'Transmission Control Protocol']) assert.ok(tree.includes(layer), `${layer} in ${tree.slice(0, 500)}`);
    const before = tree;
    await page.locator('#packets .lines li button').nth(3).click();
    await until('the tree of another packet', async () => (await page.locator('#dissected').textContent()) !== before, 60);
    assert.ok(await page.locator('#dissected summary').first().isVisible());
  },

  async only_the_worker_may_make_code_from_text() {
    // Not from the script that the test itself puts in, which may do what it likes.
    const made = await page.evaluate(() => new Promise((resolve) => {
      setTimeout(() => { try { resolve(new Function('return 1')()); } catch (error) { resolve(error.name); } }, 10);
    }));
    assert.equal(made, 'EvalError');
    const unsafe = [...policies].filter(([, policy]) => policy.includes("'unsafe-eval'")).map(([path]) => path).sort();
    assert.ok(unsafe.every((path) => path === '/page/dissector.js' || path.startsWith('/page/dissector/')), unsafe.join());
    assert.ok(!policies.get('/').includes('unsafe'), policies.get('/'));
  },

  async nothing_went_wrong() {
    assert.deepEqual(page.wrong.filter((text) => !/EvalError|unsafe-eval|TrustedScript/.test(text)), []);
    await browser.close();
  },
});
