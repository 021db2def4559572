// The answer in one line: is it recording, what was lost, how far back does it reach.

import * as api from './api.js';
import { bytes, exact, exactTime, microseconds, number, span, zoneNow, isLocal } from './format.js';
import { setLive } from './main.js';
import { change } from './state.js';
import { button, byId, el } from './ui.js';

const EVERY_MS = 5000;
const PERIODS = { '1m': '1 min', '10m': '10 min', '1h': '1 h', '1d': '1 day', all: 'all the time' };

export function bar(place, app) {
  /** @type {import('../types/api.d.ts').Status} */
  let status = null;
  /** @type {import('../types/api.d.ts').Health} */
  let health = null;
  /** @type {import('../types/api.d.ts').Answers['GET /v1/pins']} */
  let pins = null;
  let asked = -EVERY_MS, wait = EVERY_MS;
  const facts = el('dl', { id: 'facts' });
  const live = button('Pause', () => { setLive(!app.live); draw(); }, { id: 'live', 'aria-pressed': 'false' });
  const zone = button('UTC', () => change({ zone: isLocal() ? '' : 'local' }, false), { id: 'zone', title: 'Show times in UTC or in local time' });
  const pinList = el('details', { id: 'pins' }, el('summary', {}, 'Pins'), el('div', { id: 'pinned' }));
  const who = el('span', { id: 'who' });
  place.append(facts, el('div', { class: 'controls' }, pinList, live, zone, who));

  function fact(name, text, title, kind) {
    return el('div', {}, el('dt', {}, name), el('dd', { title, class: kind }, text));
  }

  function coverage() {
    const whole = microseconds(status.retained.whole_since), newest = microseconds(status.retained.newest);
    if (Number.isNaN(newest)) return ['nothing yet', ''];
    const every = Number.isNaN(whole) ? '' : `every packet of the last ${span(newest - whole)}`;
    const periods = status.coverage.filter((one) => one.sessions > 0);
    const best = [...periods].reverse().find((one) => one.first_kb >= 0.9) || periods[periods.length - 1];
    const oldest = microseconds(status.retained.oldest);
    const over = best && (best.period === 'all' ? span(newest - oldest) : PERIODS[best.period]);
    const kb = best ? `${Math.floor(best.first_kb * 100)} % of sessions’ first kB for ${over}` : '';
    const title = periods.map((one) => `${PERIODS[one.period]}: first packet ${(one.first_packet * 100).toFixed(1)} %, first kB ${(one.first_kb * 100).toFixed(1)} %, whole ${(one.whole * 100).toFixed(1)} % of ${exact(one.sessions)} sessions`);
    return [[every, kb].filter(Boolean).join('; '), title.join('\n')];
  }

  function draw() {
    live.textContent = app.live ? 'Pause' : 'Follow';
    live.setAttribute('aria-pressed', String(!app.live));
    zone.textContent = zoneNow();
    who.textContent = app.visitor ? `${app.visitor.who} on ${app.visitor.host}` : '';
    who.title = app.visitor ? `Roles: ${app.visitor.roles.join(', ')}. What is read here is in the audit log by this name.` : '';
    if (!status) return;
    const recording = byId('recording');
    const reasons = (health?.reasons || []).filter((reason) => reason.code !== 'not_recording');
    const stopped = (health?.reasons || []).find((reason) => reason.code === 'not_recording');
    recording.textContent = stopped ? 'Not recording' : reasons.length ? 'Recording, with trouble' : 'Recording';
    recording.className = stopped ? 'bad' : reasons.length ? 'doubtful' : 'good';
    recording.title = (health?.reasons || []).map((reason) => reason.detail).join('\n');
    const lost = status.packets.dropped + status.packets.kernel_dropped;
    const why = Object.entries(status.dropped).filter(([, count]) => count).map(([reason, count]) => `${reason}: ${exact(count)}`);
    const [words, title] = coverage();
    const spool = status.spool;
    facts.replaceChildren(
      fact('Kept', words, title),
      fact('Lost', lost ? `${number(lost)} packets` : 'nothing', [`kernel: ${exact(status.packets.kernel_dropped)}`, ...why].join('\n'), lost ? 'bad' : ''),
      fact('Packets', `${number(status.packets.retained)} of ${number(status.packets.received)}`, `${exact(status.packets.retained)} kept of ${exact(status.packets.received)} received`),
      fact('Memory', `${bytes(status.memory.used_bytes)} of ${bytes(status.memory.budget_bytes)}`, `${exact(status.memory.used_bytes)} of ${exact(status.memory.budget_bytes)} bytes`),
      fact('Disk', spool ? `${spool.state}, ${bytes(spool.used_bytes)} since ${exactTime(microseconds(spool.oldest) || 0)}` : 'no spool', spool ? spool.dir : ''),
      ...(reasons.length ? [fact('Trouble', reasons[0].detail, reasons.map((reason) => reason.detail).join('\n'), 'doubtful')] : []),
    );
    drawPins();
  }

  function drawPins() {
    pinList.hidden = !pins;
    if (!pins) return;
    pinList.querySelector('summary').textContent = `Pins: ${pins.pins.length}`;
    const rows = pins.pins.map((pin) => el('li', {},
      el('code', {}, pin.filter), ` until ${exactTime(microseconds(pin.until))}, ${number(pin.kept_packets)} packets, ${bytes(pin.kept_bytes)} `,
      button('Remove', async () => {
        await api.remove('DELETE /v1/pins', { id: pin.id });
        refresh(true);
      }, { 'aria-label': `Remove the pin ${pin.filter}` })));
    byId('pinned').replaceChildren(el('p', {}, `${bytes(pins.used_bytes)} of ${bytes(pins.limit_bytes)}`), el('ul', {}, ...rows));
  }

  async function refresh(now) {
    if (!now && performance.now() - asked < wait) return;
    asked = performance.now();
    const may = (role) => app.visitor?.roles.includes(role);
    [status, health, pins] = await Promise.all([api.json('GET /v1/status'), api.json('GET /v1/health'), may('pin') ? api.json('GET /v1/pins') : null]);
    // The status counts all sessions: a large recorder is asked less often.
    wait = Math.max(EVERY_MS, Math.min((performance.now() - asked) * 400, 60000));
    draw();
  }

  addEventListener('pinned', () => refresh(true));
  return { refresh, draw };
}
