// A session with a certificate and an attack: what the page shows of who took part, and a rule from a file.

import { readFileSync } from 'node:fs';
import { assert, open, ready, retrocap, run, start, until } from './harness.mjs';

const { browser, context } = await start();
const page = await ready(await open(context));
const messages = retrocap('get', '--messages', '--json').trim().split('\n').map((line) => JSON.parse(line));
const of = (name) => messages.find((message) => message.name === name);
const rule = readFileSync(new URL('../../crates/hunt/attacks/heartbleed.toml', import.meta.url), 'utf8');
const choose = (text, name = 'rule.toml') => page.locator('#rule-file').setInputFiles({ name, mimeType: 'application/toml', buffer: Buffer.from(text) });
const note = () => page.locator('#hunt-note').textContent();

await run({
  async certificate_and_fingerprints_are_those_of_the_messages() {
    await page.locator('.row').first().click();
    await page.locator('#tab-about').click();
    await page.locator('.certificate').waitFor();
    const about = await page.locator('#about').textContent();
    const { subject, issuer, serial } = of('tls.certificate').fields;
    for (const text of [subject, issuer, serial, of('tls.client_hello').fields.ja3, of('tls.client_hello').fields.ja4, of('tls.server_hello').fields.ja3s]) assert.ok(about.includes(text), text);
    assert.match(about, /Nameswww\.lilawelt\.de lilawelt\.de/);
    assert.match(about, /Valid2013-10-15 08:57:49 UTC to 2014-10-15 22:19:16 UTC/);
    assert.match(about, /Self-signedno/);
    assert.equal(await page.locator('#messages li').count(), messages.length);
  },

  async a_rule_from_a_file_is_checked_and_run() {
    await page.locator('#tab-hunt').click();
    await choose(rule);
    await until('matches', async () => (await page.locator('#matches li').count()) > 0);
    assert.match(await page.locator('#matches').textContent(), /heartbleed/);
    assert.equal(await page.locator('#rule-kind').inputValue(), 'rule');
  },

  async a_rule_whose_tests_fail_is_not_run() {
    const wrong = rule.replace('matches = true', 'matches = false');
    assert.notEqual(wrong, rule);
    await choose(wrong);
    await until('why', async () => /rule heartbleed: case .* is found, and should not be/.test(await note()));
    assert.equal(await page.locator('#matches li').count(), 0);
    await choose('not = [a rule');
    await until('where', async () => /TOML parse error|missing field|expected/.test(await note()));
    await choose('#'.repeat(70000), 'huge.toml');
    await until('too large', async () => /huge\.toml is too large/.test(await note()));
  },

  async a_dropped_rule_is_run_too() {
    await page.evaluate((text) => {
      const data = new DataTransfer();
      data.items.add(new File([text], 'rule.toml'));
      for (const kind of ['dragover', 'drop']) document.getElementById('rule-drop').dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
    }, rule);
    await until('matches', async () => (await page.locator('#matches li').count()) > 0);
  },

  async nothing_went_wrong() {
    assert.deepEqual(page.wrong, []);
    await browser.close();
  },
});
