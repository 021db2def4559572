// Each region of the page and each button, against a recorder of a capture of HTTP and DNS.

import { readFileSync } from 'node:fs';
import { assert, counts, link, open, ready, retrocap, run, start, until } from './harness.mjs';

const { browser, context } = await start();
const page = await ready(await open(context));
const flows = retrocap('flows', '--json').trim().split('\n').map((line) => JSON.parse(line));
const http = flows.find((flow) => flow.http_host);
const show = (flow) => page.evaluate((id) => { location.hash = `session=${id}`; }, flow.id);
const saved = async (click) => {
  const [download] = await Promise.all([page.waitForEvent('download'), click()]);
  return readFileSync(await download.path());
};
const clear = async () => {
  await page.evaluate(() => { location.hash = ''; });
  await until('nothing narrows the list', async () => { const [shown, all] = await counts(page); return shown === all; });
};

await run({
  async bar_says_what_is_kept_and_lost() {
    // A replay that has ended does not record.
    assert.match(await page.locator('#recording').textContent(), /recording/i);
    assert.match(await page.locator('#facts').textContent(), /every packet of the last .* % of sessions’ first kB/);
    assert.match(await page.locator('#facts').textContent(), /Lostnothing/);
    assert.match(await page.locator('#facts').textContent(), /no spool/);
  },

  async list_has_the_sessions_newest_first_with_names() {
    assert.equal((await counts(page))[1], flows.length);
    const first = await page.locator('.row').first().textContent();
    assert.ok(first.includes(flows[0].originator.ip), first);
    await until('names come', async () => /\(A\)|www\./.test(await page.locator('#grid').textContent()));
    assert.equal(await page.locator('#grid').getAttribute('aria-rowcount'), String(flows.length + 1));
  },

  async list_has_the_words_that_the_command_line_has() {
    const spoken = new Map(retrocap('flows', '--app', 'any', '--json').trim().split('\n').map((line) => JSON.parse(line)).map((flow) => [flow.id, flow.app]));
    const expected = flows.slice(0, 12).map((flow) => spoken.get(flow.id)).map((app) => (app ? [app.name, ...app.words].join(' ') : ''));
    assert.ok(expected.filter(Boolean).length > 3, 'sessions with words are in view');
    const shown = () => page.locator('.row:not([hidden])').evaluateAll((all) => all.map((row) => row.children[4].textContent));
    await until(expected.join(', '), async () => { const cells = await shown(); return expected.every((text, at) => cells[at].startsWith(text)); });
  },

  async time_strip_sets_the_window() {
    const box = await page.locator('#timeline').boundingBox();
    await page.mouse.move(box.x + box.width * 0.2, box.y + 40);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.5, box.y + 40, { steps: 5 });
    await page.mouse.up();
    await until('fewer sessions', async () => { const [shown, all] = await counts(page); return shown < all && shown > 0; });
    const hash = new URLSearchParams(new URL(page.url()).hash.slice(1));
    const [since, till] = [hash.get('since'), hash.get('until')];
    const listed = retrocap('flows', '--json', '--since', since, '--until', till).trim().split('\n').length;
    assert.equal((await counts(page))[0], listed, 'as the command line lists them');
    await page.locator('#everything').click();
    await until('all sessions', async () => { const [shown, all] = await counts(page); return shown === all; });
    for (const name of ['Zoom in', 'Later', 'Earlier', 'Zoom out']) await page.getByRole('button', { name, exact: true }).click();
    await page.getByRole('button', { name: '10 min', exact: true }).click();
    await page.locator('#since').fill('2013-05-02 20:20:45');
    await page.locator('#until').fill('');
    await page.getByRole('button', { name: 'Set', exact: true }).click();
    await until('the window is set', async () => page.url().includes('since=2013-05-02T20%3A20%3A45'));
    await clear();
  },

  async time_strip_marks_gaps_losses_and_what_is_kept() {
    const pixel = (x, y) => page.locator('#timeline').evaluate((canvas, [left, top]) => {
      const scale = canvas.width / canvas.clientWidth;
      return [...canvas.getContext('2d').getImageData(Math.floor(left * canvas.width), Math.floor(top * scale), 1, 1).data].slice(0, 3);
    }, [x, y]);
    const colour = (name) => page.evaluate((variable) => {
      const probe = document.createElement('i');
      probe.style.color = `var(${variable})`;
      document.body.append(probe);
      const made = getComputedStyle(probe).color.match(/\d+/g).map(Number);
      probe.remove();
      return made;
    }, name);
    // A capture file has no gaps and no losses, so that they are put into the recorder's answer.
    await page.route('**/v1/timeline*', async (route) => {
      const answer = await route.fetch(), timeline = await answer.json();
      const at = (share) => new Date(Date.parse(timeline.since) + share * (Date.parse(timeline.until) - Date.parse(timeline.since))).toISOString();
      await route.fulfill({ json: { ...timeline, gaps: [{ since: at(0.2), until: at(0.3), interface: '' }], drops: [{ since: at(0.6), until: at(0.7), packets: 1234 }], whole_since: at(0.5) } });
    });
    await page.locator('#everything').click();
    await page.getByRole('button', { name: 'Zoom in', exact: true }).click();
    await page.locator('#everything').click();
    await until('gaps and losses in words', async () => /1 gap in the recording, 1234 packets lost/.test(await page.locator('#timeline').getAttribute('aria-label')));
    const lost = await colour('--lost'), whole = await colour('--whole');
    assert.deepEqual([await pixel(0.25, 2), await pixel(0.65, 8), await pixel(0.75, 81)], [lost, lost, whole]);
    assert.notDeepEqual(await pixel(0.4, 2), lost);
    assert.notDeepEqual(await pixel(0.25, 81), whole);
    assert.ok((await page.locator('#legend').textContent()).includes('gap or loss'));
    await page.unroute('**/v1/timeline*');
    await clear();
  },

  async numbers_are_exact_on_hover() {
    const most = [...flows].sort((a, b) => b.bytes.originator + b.bytes.responder - a.bytes.originator - a.bytes.responder)[0];
    await page.locator('#sort').selectOption('bytes');
    const exact = (count) => String(count).replace(/\B(?=(\d{3})+(?!\d))/g, ',');
    const cell = page.locator('.row').first().locator('span').nth(8);
    await until('the largest first', async () => (await cell.getAttribute('title')) === `${exact(most.bytes.originator)} out, ${exact(most.bytes.responder)} in`);
    assert.match(await cell.textContent(), /^[\d.]+ [KM]iB$/);
    for (const title of await page.locator('#sums li > button:first-child').evaluateAll((all) => all.map((one) => one.title))) assert.match(title, /^[\d,]+ bytes out, [\d,]+ bytes in, [\d,]+ sessions$/);
    await clear();
  },

  async talkers_narrow_and_exclude() {
    await until('talkers', async () => (await page.locator('#sums li').count()) > 3);
    const name = await page.locator('#sums .name').nth(1).textContent();
    await page.locator('#sums li > button:first-child').nth(1).click();
    const expected = retrocap('flows', '--json', '--address', name).trim().split('\n').length;
    await until('narrowed', async () => (await counts(page))[0] === expected);
    await page.goBack();
    await until('the way back', async () => (await counts(page))[0] === flows.length);
    await page.locator('#sums li > button:first-child').nth(1).click({ modifiers: ['Alt'] });
    await until('excluded', async () => (await counts(page))[0] === flows.length - expected);
    await page.locator('#terms button').click();
    await until('the term is gone', async () => (await counts(page))[0] === flows.length);
    for (const [kind, sign] of [['pair', /–/], ['port', /udp\/53 dns/], ['app', /dns/], ['process', null]]) {
      await page.locator('#by').selectOption(kind);
      if (sign) await until(kind, async () => sign.test(await page.locator('#sums').textContent()));
      else await until(kind, async () => /--processes/.test(await page.locator('#talkers').textContent()));
    }
    await clear();
  },

  async applications_are_sums_of_all_sessions() {
    await page.locator('#by').selectOption('app');
    await until('said', async () => new RegExp(`of all ${flows.length} sessions`).test(await page.locator('#talkers').textContent()));
    const sums = await page.locator('#sums li > button:first-child').evaluateAll((all) => all.map((one) => Number(one.title.match(/([\d,]+) sessions/)[1].replaceAll(',', ''))));
    assert.equal(sums.reduce((all, one) => all + one, 0), flows.length, 'each session is in one sum');
    const at = (await page.locator('#sums .name').allTextContents()).indexOf('dns');
    const expected = flows.filter((flow) => flow.responder.port === 53).length;
    assert.equal(sums[at], expected);
    await page.locator('#sums li > button:first-child').nth(at).click();
    await until('narrowed', async () => (await counts(page))[0] === expected);
    await clear();
  },

  async search_says_what_it_understood() {
    for (const [text, understood, words] of [
      ['10.0.0.6', 'address 10.0.0.6', ['--address', '10.0.0.6']],
      ['10.0.0.0/29', 'network', ['--address', '10.0.0.0/29']],
      ['port:53', 'port 53', ['--port', '53']],
      ['udp', 'protocol udp', ['udp']],
      ['ynet', 'names that contain ynet', ['--name', 'ynet']],
      ['tcp port 80 and host 10.0.0.4', 'a tcpdump expression', ['tcp port 80 and host 10.0.0.4']],
    ]) {
      await page.locator('#q').fill(text);
      await page.locator('#q').press('Enter');
      const expected = retrocap('flows', '--json', ...words).trim().split('\n').length;
      await until(`${text}: ${expected}`, async () => {
        const said = await page.locator('#understood').textContent();
        return said.includes(understood) && (await counts(page))[0] === expected;
      });
    }
    await page.locator('#q').fill('tcp prt 80 and');
    await page.locator('#q').press('Enter');
    await until('a mistake is said', async () => /syntax error/.test(await page.locator('#understood').textContent()));
    await clear();
  },

  async session_has_packets_directions_and_facts() {
    await show(http);
    const expected = retrocap('get', '--text', '-t', '--flow', `${http.originator.ip}:${http.originator.port} ${http.responder.ip}:${http.responder.port} tcp`).trim().split('\n');
    await until('its packets', async () => (await page.locator('#packets .lines li').count()) === expected.length);
    assert.ok((await page.locator('#packets .lines li').nth(0).textContent()).includes(expected[0]));
    for (const layer of ['Ethernet', 'IPv4', 'TCP']) assert.ok((await page.locator('#tree').textContent()).includes(layer), layer);
    await page.locator('#tab-conversation').click();
    await until('what was said', async () => (await page.locator('#said-bytes').textContent()).includes(`Host: ${http.http_host}`));
    await page.locator('#hex').check();
    assert.match(await page.locator('#said-bytes').textContent(), /000000 {2}47 45 54/);
    await page.locator('#tab-about').click();
    assert.ok((await page.locator('#about').textContent()).includes(http.community_id));
    await page.locator('#tab-files').click();
    await until('its files', async () => !/Reading/.test(await page.locator('#files').textContent()));
  },

  async buttons_export_pin_and_copy() {
    await show(http);
    await page.locator('#pcapng').waitFor();
    const file = await saved(() => page.locator('#pcapng').click());
    assert.equal(file.readUInt32LE(0), 0x0a0d0d0a, 'a pcapng file');
    const around = await saved(() => page.locator('button.host').first().click());
    assert.ok(around.length >= file.length);
    await page.locator('#pin').click();
    await page.locator('#pin-now').click();
    await until('a pin', async () => JSON.parse(retrocap('pin', '--list', '--json')).pins.length === 1);
    await until('the bar has it', async () => (await page.locator('#pins').textContent()).includes('Pins: 1'));
    await page.locator('#pins summary').click();
    await page.getByRole('button', { name: /Remove the pin/ }).click();
    await until('it is removed', async () => JSON.parse(retrocap('pin', '--list', '--json')).pins.length === 0);
    await page.locator('#as-command').click();
    const command = await page.locator('#given textarea').inputValue();
    assert.match(command, /^retrocap get --flow '.*' --since '.*' --until '.*' .*-w session.pcapng/);
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), command);
    await page.locator('#as-curl').click();
    assert.ok((await page.locator('#given textarea').inputValue()).startsWith(`curl --unix-socket '${process.env.RETROCAP_SOCKET}' 'http://localhost/v1/packets?flow=`));
    await page.locator('#close').click();
    assert.equal(await page.locator('#session').isVisible(), false);
  },

  async hunt_shows_matches_and_opens_their_session() {
    await page.locator('#tab-hunt').click();
    await page.locator('#rules').fill(`Host: ${http.http_host}`);
    await page.locator('#hunt-start').click();
    await until('matches', async () => (await page.locator('#matches li').count()) > 0);
    await until('the search ends', async () => /\d+ match(es)?(?! so far|es so far)/.test(await page.locator('#hunt-note').textContent()));
    await page.locator('#matches button').first().click();
    await page.locator('#packets .lines li').first().waitFor();
    await page.locator('#rules').fill('');
    await page.locator('#hunt-start').click();
    assert.match(await page.locator('#hunt-note').textContent(), /There is no rule/);
    await page.locator('#rules').fill('no such text anywhere');
    await page.locator('#hunt-start').click();
    await until('nothing matched', async () => /nothing matched/.test(await page.locator('#hunt-note').textContent()));
    await clear();
  },

  async alerts_say_what_is_there() {
    await page.locator('#tab-alerts').click();
    const event = (flow, signature) => JSON.stringify({ timestamp: flow.first.replace('Z', '+0000').replace(/(\.\d{6})\d*/, '$1'), event_type: 'alert', src_ip: flow.originator.ip, src_port: flow.originator.port,
      dest_ip: flow.responder.ip, dest_port: flow.responder.port, proto: flow.proto.toUpperCase(), alert: { signature } });
    const eve = [event(http, 'ET <img src=x onerror=alert(1)> here'), event({ ...http, responder: { ip: '203.0.113.9', port: 1 } }, 'not there'), 'nonsense'].join('\n');
    await page.locator('#alert-file').setInputFiles({ name: 'eve.json', mimeType: 'application/json', buffer: Buffer.from(eve) });
    await until('outcomes', async () => (await page.locator('#outcomes tbody tr').count()) === 2);
    assert.match(await page.locator('#alert-note').textContent(), /1 found, 0 found in part, 1 missing; 1 lines were not understood/);
    assert.ok((await page.locator('#outcomes').textContent()).includes('<img src=x onerror=alert(1)>'), 'as text');
    const seconds = (text) => Date.parse(text) / 1000;
    const log = ['#separator \\x09', '#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration', [seconds(http.first), 'C1', http.originator.ip, http.originator.port, http.responder.ip, http.responder.port, 'tcp', 1].join('\t')].join('\n');
    await page.locator('#alert-file').setInputFiles({ name: 'conn.log', mimeType: 'text/plain', buffer: Buffer.from(log) });
    await until('one found', async () => /1 found, 0 found in part, 0 missing/.test(await page.locator('#alert-note').textContent()));
    // The alerts are in the address: somebody else sees the same outcomes, of the recorder as it is then.
    const other = await open(context, page.url().replace(/#/, `#${link().split('#')[1]}&`));
    // Whoever opens it decides whether to ask.
    await until('the alerts', async () => (await other.locator('#outcomes tbody tr').count()) === 1);
    assert.match(await other.locator('#outcomes').textContent(), /not asked for yet/);
    await other.locator('#alerts-look').click();
    await until('the same outcomes', async () => /1 found, 0 found in part, 0 missing/.test(await other.locator('#alert-note').textContent()));
    assert.deepEqual(await other.locator('#outcomes tbody tr').allTextContents(), await page.locator('#outcomes tbody tr').allTextContents());
    await other.evaluate(() => { location.hash = location.hash.replace(/alerts=.{9}/, 'alerts=AAAAAAAAA'); });
    await until('what is wrong', async () => /cannot be read/.test(await other.locator('#alert-note').textContent()));
    assert.deepEqual(other.wrong, []);
    await other.close();
    await page.locator('#outcomes button').click();
    await until('its session', async () => { const [shown, all] = await counts(page); return shown >= 1 && shown < all; });
    await clear();
  },

  async odd_events_and_events_that_are_no_alerts_stop_nothing() {
    await page.locator('#tab-alerts').click();
    const event = (part) => JSON.stringify({ timestamp: http.first.replace(/(\.\d{6})\d*/, '$1'), event_type: 'alert', src_ip: http.originator.ip, src_port: http.originator.port,
      dest_ip: http.responder.ip, dest_port: http.responder.port, proto: 'TCP', alert: { signature: 'abc\u202egnp.exe' }, ...part });
    const odd = [{ src_ip: 'nowhere' }, { src_ip: '2001:db8::1' }, { timestamp: '1066-10-14T00:00:00Z' }, { timestamp: 'soon' }, { src_ip: '999.1.1.1' }].map(event);
    const eve = [...odd, event({ event_type: 'dns' }), event({ event_type: 'flow' }), event({ src_port: undefined }), event({})].join('\n');
    await page.locator('#alert-file').setInputFiles({ name: 'eve.json', mimeType: 'application/json', buffer: Buffer.from(eve) });
    await until('outcomes', async () => /2 found, 0 found in part, 0 missing; 5 lines were not understood; 2 other events left out/.test(await page.locator('#alert-note').textContent()));
    assert.ok((await page.locator('#outcomes').textContent()).includes('abc\ufffdgnp.exe'));
    await clear();
  },

  async odd_links_break_nothing() {
    for (const [hash, says] of [['only=pair:x', null], ['view=foo', null], ['since=garbage', /since of this link is no time: garbage/], ['until=9999999-01-01', /until of this link is no time/]]) {
      await page.evaluate((text) => { location.hash = text; }, hash);
      await until(hash, async () => { const [shown, all] = await counts(page); return shown === all; });
      await page.locator('.row:not([hidden])').first().waitFor();
      if (says) await until('what is wrong', async () => says.test(await page.locator('#trouble').textContent()));
    }
    await page.evaluate((from) => { location.hash = `since=${encodeURIComponent(from)}`; }, flows[0].first.replace('Z', '+00:00'));
    await until('a time with a zone', async () => { const [shown, all] = await counts(page); return shown > 0 && shown < all; });
    await clear();
  },

  async a_new_link_opens_where_the_page_already_is() {
    const other = await ready(await open(context));
    const fresh = link();
    await other.evaluate((hash) => { location.hash = hash; }, new URL(fresh).hash);
    await until('the secret is used', async () => !other.url().includes('link='));
    await ready(other);
    const used = await context.newPage();
    const refused = used.waitForResponse((answer) => answer.url().endsWith('/v1/page/session'));
    await used.goto(fresh);
    assert.equal((await refused).status(), 401);
    await used.close();
    assert.deepEqual(other.wrong, []);
    await other.close();
  },

  async a_dropped_log_is_taken_too() {
    await page.locator('#tab-alerts').click();
    await page.evaluate(() => {
      const data = new DataTransfer();
      data.items.add(new File(['no alerts here'], 'notes.txt'));
      for (const kind of ['dragover', 'drop']) document.getElementById('drop').dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
    });
    await until('what is wrong', async () => /There is no alert in notes.txt/.test(await page.locator('#alert-note').textContent()));
    await clear();
  },

  async times_have_their_zone() {
    assert.match(await page.locator('#window').textContent(), /UTC/);
    await page.locator('#zone').click();
    await until('local time', async () => page.url().includes('zone=local'));
    assert.match(await page.locator('#zone').textContent(), /UTC[+−]\d\d:\d\d/);
    await clear();
  },

  async a_deep_link_shows_the_same_to_a_colleague() {
    const other = await context.newPage();
    const url = new URL(link());
    const hash = new URLSearchParams(url.hash.slice(1));
    hash.set('q', '10.0.0.6');
    hash.set('sort', 'bytes');
    hash.set('session', http.id);
    await other.goto(`${url.origin}/#${hash}`);
    await other.locator('#packets .lines li').first().waitFor();
    assert.equal(await other.locator('#q').inputValue(), '10.0.0.6');
    assert.ok(!other.url().includes('link='), 'the secret is not in the address any more');
    await other.reload();
    await other.locator('#packets .lines li').first().waitFor();
    // So is the packet that was chosen.
    await other.locator('#packets .lines button').last().click();
    const [chosen, tree] = [await other.locator('#packets [aria-current]').textContent(), await other.locator('#tree').textContent()];
    await until('the packet', async () => other.url().includes('packet='));
    await other.reload();
    await until('the same packet', async () => (await other.locator('#packets [aria-current]').allTextContents()).join() === chosen);
    assert.equal(await other.locator('#tree').textContent(), tree);
    await other.goto(`${url.origin}/#session=${http.id}&packet=2001-01-01T00:00:00Z`);
    await other.reload();
    await until('that it is not there', async () => /2001-01-01 00:00:00.* is not among them/.test(await other.locator('#packets .note').first().textContent()));
    await other.locator('#packets .lines li').first().waitFor();
    // The view of the session, and what is hunted for, are in the address too; a hunt waits for who opened it.
    await other.locator('#tab-conversation').click();
    await until('the view', async () => other.url().includes('tab=conversation'));
    await other.reload();
    await other.locator('#said-bytes pre').first().waitFor();
    await other.goto(`${url.origin}/#view=hunt&kind=regex&rules=${encodeURIComponent('Host: .*')}`);
    await other.reload();
    await other.locator('#rules').waitFor();
    assert.deepEqual([await other.locator('#rule-kind').inputValue(), await other.locator('#rules').inputValue()], ['regex', 'Host: .*']);
    assert.equal(await other.locator('#matches li').count(), 0);
    await other.close();
  },

  async nothing_went_wrong() {
    assert.deepEqual(page.wrong, []);
    await browser.close();
  },
});
