// Numbers, times and bytes for people. No Intl in cells: it is slow, and the form of a number must not depend on the browser.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
let local = false;

export const isLocal = () => local;
export function useLocal(on) { local = on; }

export function bytes(count) {
  let value = count, unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
  return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

export function exact(count) {
  return String(count).replace(/\B(?=(\d{3})+(?!\d))/g, ',');
}

export function number(count) {
  if (count < 10000) return String(count);
  if (count < 1e6) return `${(count / 1e3).toFixed(count < 1e5 ? 1 : 0)} k`;
  return `${(count / 1e6).toFixed(1)} M`;
}

// A number with its thing: 1 session, 2 sessions.
export const counted = (count, thing) => `${number(count)} ${thing}${count === 1 ? '' : 's'}`;

const two = (value) => (value < 10 ? `0${value}` : `${value}`);

function zone(date) {
  if (!local) return 'UTC';
  const minutes = -date.getTimezoneOffset();
  const away = Math.abs(minutes);
  return `UTC${minutes < 0 ? '−' : '+'}${two(Math.floor(away / 60))}:${two(away % 60)}`;
}

// A time in microseconds since 1970, as parts of text.
function parts(us) {
  const date = new Date(us / 1000);
  const get = (name) => (local ? date[`get${name}`]() : date[`getUTC${name}`]());
  const day = `${get('FullYear')}-${two(get('Month') + 1)}-${two(get('Date'))}`;
  const clock = `${two(get('Hours'))}:${two(get('Minutes'))}:${two(get('Seconds'))}`;
  return { day, clock, zone: zone(date) };
}

export function time(us) {
  const { day, clock, zone: where } = parts(us);
  return `${day} ${clock} ${where}`;
}

export function clock(us) {
  return parts(us).clock;
}

export function dayAndClock(us) {
  const { day, clock: of } = parts(us);
  return `${day.slice(5)} ${of}`;
}

export function exactTime(us) {
  const { day, clock: of, zone: where } = parts(us);
  return `${day} ${of}.${String(Math.floor(us % 1e6)).padStart(6, '0')} ${where}`;
}

export function zoneNow() {
  return zone(new Date());
}

export function span(us) {
  const s = us / 1e6;
  if (s < 1e-3) return `${Math.round(us)} µs`;
  if (s < 1) return `${Math.round(s * 1e3)} ms`;
  if (s < 120) return `${s < 10 ? s.toFixed(1) : Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}

// An RFC 3339 time of the recorder in microseconds.
export function microseconds(text) {
  if (!text) return NaN;
  const [whole, fraction = ''] = text.replace('Z', '').split('.');
  return Date.parse(`${whole}Z`) * 1000 + Number(fraction.slice(0, 6).padEnd(6, '0'));
}

export function rfc3339(us) {
  const whole = new Date(Math.floor(us / 1000)).toISOString().slice(0, 19);
  return `${whole}.${String(Math.floor(us % 1e6)).padStart(6, '0')}Z`;
}

export function decode64(text) {
  const raw = atob(text);
  const data = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i += 1) data[i] = raw.charCodeAt(i);
  return data;
}

// Bytes as text in which no character hides: control characters are dots.
export function printable(data) {
  let text = '';
  for (const byte of data) {
    text += byte === 10 ? '\n' : byte >= 32 && byte < 127 ? String.fromCharCode(byte) : '·';
  }
  return text.replaceAll('·\n', '\n');
}

export function hexDump(data, from = 0) {
  const lines = [];
  for (let at = 0; at < data.length; at += 16) {
    const row = data.subarray(at, at + 16);
    let hex = '', text = '';
    for (let i = 0; i < 16; i += 1) {
      hex += i < row.length ? `${row[i].toString(16).padStart(2, '0')} ` : '   ';
      if (i === 7) hex += ' ';
      if (i < row.length) text += row[i] >= 32 && row[i] < 127 ? String.fromCharCode(row[i]) : '·';
    }
    lines.push(`${(from + at).toString(16).padStart(6, '0')}  ${hex} ${text}`);
  }
  return lines.join('\n');
}
