// From another machine: a browser whose certificate was imported from the file that `certs client` writes, and one without.
// RETROCAP_PAGE_URL is the address; HOME has the certificates.

import { assert, counts, open, ready, retrocap, run, start, until } from './harness.mjs';

const url = process.env.RETROCAP_PAGE_URL, name = process.env.RETROCAP_CLIENT;
const { browser, context } = await start();

const tests = {
  async the_page_opens_without_a_link_by_the_name_of_the_certificate() {
    const page = await ready(await open(context, `${url}/`));
    const flows = retrocap('flows', '--json').trim().split('\n').length;
    assert.equal((await counts(page))[1], flows);
    assert.match(await page.locator('#who').textContent(), new RegExp(`^${name} at 127\\.0\\.0\\.1:\\d+ on `));
    assert.match(await page.locator('#who').getAttribute('title'), /Roles: status, flows, packets\./);
    await page.locator('.row').first().click();
    await page.locator('#packets .lines li').first().waitFor();
    assert.equal(await page.locator('#pin').count(), 0, 'its roles have no pin');
    // Words are read in the share of the memory that one client may have.
    const spoken = retrocap('flows', '--app', 'any', '--json').trim().split('\n').map((line) => JSON.parse(line).app).filter(Boolean);
    const texts = new Set(spoken.map((app) => [app.name, ...app.words].join(' ')).filter((text) => text.includes(' ')));
    await until('words', async () => (await page.locator('.row:not([hidden])').evaluateAll((all) => all.map((row) => row.children[4].textContent))).some((cell) => texts.has(cell.split(' · ')[0])));
    await page.reload();
    await ready(page);
    assert.deepEqual(page.wrong, []);
    await browser.close();
  },
};
const without = {
  async without_a_certificate_nothing_is_shown() {
    const page = await context.newPage();
    const answer = await page.goto(`${url}/`).catch((error) => error);
    await until('it is refused', () => answer instanceof Error);
    assert.match(answer.message, /ERR_(BAD_SSL_CLIENT_AUTH_CERT|SSL_CLIENT_AUTH_CERT_NEEDED|CONNECTION_CLOSED|CONNECTION_RESET|SOCKET_NOT_CONNECTED|SSL_PROTOCOL_ERROR)/);
    await browser.close();
  },
};
const status = {
  async the_status_is_shown_to_whom_the_roles_allow_no_more() {
    const page = await open(context, `${url}/`);
    await until('recording', async () => /Recording|Not recording/.test(await page.locator('#recording').textContent()));
    await page.locator('#facts dd').first().waitFor();
    assert.match(await page.locator('#trouble').textContent(), /sessions need the role flows/);
    assert.equal(await page.locator('.row').count(), 0);
    await browser.close();
  },
};
await run(name === 'status' ? status : name ? tests : without);
