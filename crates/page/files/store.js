// All sessions as columns of numbers, as the recorder sends them (GET /v1/columns): a million of them is an amount that a
// browser can search between two frames.

import { parse } from './api.js';

const COLUMNS = 19;
const FIELDS = {
  idLow: Uint32Array, idHigh: Uint32Array, first: Float64Array, last: Float64Array, originator: Uint32Array, responder: Uint32Array,
  originatorPort: Uint16Array, responderPort: Uint16Array, protocol: Uint32Array, state: Uint8Array, flags: Uint8Array,
  iface: Uint16Array, vlan: Uint16Array, originatorPackets: Float64Array, responderPackets: Float64Array,
  originatorBytes: Float64Array, responderBytes: Float64Array, keptPackets: Float64Array, keptBytes: Float64Array, holes: Uint8Array,
};
const NAMES = [null, null, null, null, null, 'originatorPort', 'responderPort', 'protocol', 'state', 'flags', 'iface', 'vlan',
  'originatorPackets', 'responderPackets', 'originatorBytes', 'responderBytes', 'keptPackets', 'keptBytes', 'holes'];
export const ETHERTYPE = 65536;
const PROTOCOLS = { 1: 'icmp', 2: 'igmp', 6: 'tcp', 17: 'udp', 47: 'gre', 50: 'esp', 51: 'ah', 58: 'icmp6', 132: 'sctp',
  [ETHERTYPE]: 'link', [ETHERTYPE + 0x806]: 'arp', [ETHERTYPE + 0x88cc]: 'lldp', [ETHERTYPE + 0x8892]: 'profinet' };

export function protocolName(number) {
  if (PROTOCOLS[number]) return PROTOCOLS[number];
  return number >= ETHERTYPE ? `0x${(number - ETHERTYPE).toString(16).padStart(4, '0')}` : String(number);
}

export function protocolNumber(name) {
  const found = Object.entries(PROTOCOLS).find(([, known]) => known === name);
  return found ? Number(found[0]) : -1;
}

class Addresses {
  constructor() {
    this.kinds = [];
    this.raw = [];
    this.texts = [];
    this.v4 = new Map();
    this.others = new Map();
    // The places of addresses that came last: blocks name the same ones again and again.
    this.recent = new Int32Array(65536).fill(-1);
  }

  get count() { return this.kinds.length; }

  add(view, at) {
    const kind = view[at];
    if (kind === 4) {
      const number = ((view[at + 1] << 24) | (view[at + 2] << 16) | (view[at + 3] << 8) | view[at + 4]) >>> 0;
      const slot = Math.imul(number, 0x9e3779b1) >>> 16;
      let index = this.recent[slot];
      if (index >= 0 && this.raw[index] === number) return index;
      index = this.v4.get(number);
      if (index === undefined) {
        index = this.push(4, number);
        this.v4.set(number, index);
      }
      this.recent[slot] = index;
      return index;
    }
    const bytes = view.slice(at + 1, at + (kind === 6 ? 17 : 7));
    const key = bytes.join();
    let index = this.others.get(key);
    if (index === undefined) {
      index = this.push(kind, bytes);
      this.others.set(key, index);
    }
    return index;
  }

  push(kind, raw) {
    this.kinds.push(kind);
    this.raw.push(raw);
    this.texts.push(null);
    return this.kinds.length - 1;
  }

  text(index) {
    const known = this.texts[index];
    if (known !== null) return known;
    const raw = this.raw[index];
    let text;
    if (this.kinds[index] === 4) text = `${raw >>> 24}.${(raw >>> 16) & 255}.${(raw >>> 8) & 255}.${raw & 255}`;
    else if (this.kinds[index] === 6) text = v6(raw);
    else text = [...raw].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
    this.texts[index] = text;
    return text;
  }
}

function v6(bytes) {
  const words = [];
  for (let i = 0; i < 16; i += 2) words.push((bytes[i] << 8) | bytes[i + 1]);
  let best = { at: -1, length: 1 };
  for (let at = 0; at < 8; at += 1) {
    let length = 0;
    while (at + length < 8 && words[at + length] === 0) length += 1;
    if (length > best.length) best = { at, length };
  }
  const hex = words.map((word) => word.toString(16));
  if (best.at < 0) return hex.join(':');
  return `${hex.slice(0, best.at).join(':')}::${hex.slice(best.at + best.length).join(':')}`;
}

// The numbers of a column without its base.
function numbersOf({ width, values }, count) {
  const numbers = new Float64Array(count);
  if (width === 8) for (let i = 0; i < count; i += 1) numbers[i] = values[2 * i] + values[2 * i + 1] * 4294967296;
  else if (width) numbers.set(values);
  return numbers;
}

// Writes a column of new rows, which follow each other: copying is done by the browser, and the loops meet one type each.
function fill(into, start, count, base, width, values, map) {
  const end = start + count;
  if (width === 0) into.fill(map ? map[base] : base, start, end);
  else if (width === 8) {
    for (let i = 0; i < count; i += 1) {
      const value = base + values[2 * i] + values[2 * i + 1] * 4294967296;
      into[start + i] = map ? map[value] : value;
    }
  } else {
    into.set(values, start);
    if (map) for (let i = start; i < end; i += 1) into[i] = map[into[i] + base];
    else if (base) for (let i = start; i < end; i += 1) into[i] += base;
  }
}

export class Store {
  // The columns: clear() makes them.
  idLow; idHigh; first; last; originator; responder; originatorPort; responderPort; protocol; state; flags; iface; vlan;
  originatorPackets; responderPackets; originatorBytes; responderBytes; keptPackets; keptBytes; holes;

  constructor() {
    this.clear();
  }

  clear() {
    this.count = 0;
    this.room = 0;
    for (const name of Object.keys(FIELDS)) this[name] = new FIELDS[name](0);
    this.addresses = new Addresses();
    this.index = null;
    this.version = (this.version || 0) + 1;
  }

  reserve(count) {
    if (count <= this.room) return;
    this.room = Math.max(count, this.room * 2, 1024);
    for (const [name, Type] of Object.entries(FIELDS)) {
      const grown = new Type(this.room);
      grown.set(this[name]);
      this[name] = grown;
    }
  }

  /**
   * Reads an answer: replaces sessions that are known, adds the others, and returns its end.
   * @returns {import('../types/api.d.ts').ColumnsEnd}
   */
  read(buffer) {
    const bytes = new Uint8Array(buffer), view = new DataView(buffer);
    const fresh = this.count === 0;
    // A session takes about thirty bytes.
    if (fresh) this.reserve(Math.ceil(buffer.byteLength / 28));
    let at = 0;
    for (;;) {
      if (at + 16 > bytes.length) throw new Error('the answer was cut short');
      const magic = view.getUint32(at, false), count = view.getUint32(at + 4, true);
      if (magic === 0x52434245) {
        return parse(new TextDecoder().decode(bytes.subarray(at + 16, at + 16 + count)));
      }
      if (magic !== 0x52434231) throw new Error('this is no answer in columns');
      at = this.block(buffer, bytes, view, at, count, fresh);
    }
  }

  block(buffer, bytes, view, start, count, fresh) {
    let at = start + 16;
    const addressCount = view.getUint32(start + 8, true);
    const numbers = new Uint32Array(addressCount);
    for (let i = 0; i < addressCount; i += 1) {
      numbers[i] = this.addresses.add(bytes, at);
      at += bytes[at] === 4 ? 5 : bytes[at] === 6 ? 17 : 7;
    }
    at = Math.ceil(at / 8) * 8;
    const columns = [];
    for (let i = 0; i < COLUMNS; i += 1) {
      const width = bytes[at + 8];
      const column = { low: view.getUint32(at, true), high: view.getUint32(at + 4, true), width, at: at + 16 };
      column.values = width === 1 ? new Uint8Array(buffer, at + 16, count) : width === 2 ? new Uint16Array(buffer, at + 16, count)
        : width === 4 ? new Uint32Array(buffer, at + 16, count) : width === 8 ? new Uint32Array(buffer, at + 16, count * 2) : null;
      columns.push(column);
      at = Math.ceil((at + 16 + width * count) / 8) * 8;
    }
    const rows = this.rows(columns[0], count, fresh);
    this.times(columns[1], columns[2], rows);
    const put = (name, column, map) => {
      const into = this[name], base = column.low + column.high * 4294967296, { width, values } = column;
      if (fresh) return fill(into, rows[0], count, base, width, values, map);
      for (let i = 0; i < count; i += 1) {
        const value = base + (width === 0 ? 0 : width === 8 ? values[2 * i] + values[2 * i + 1] * 4294967296 : values[i]);
        into[rows[i]] = map ? map[value] : value;
      }
    };
    put('originator', columns[3], numbers);
    put('responder', columns[4], numbers);
    for (let i = 5; i < COLUMNS; i += 1) put(NAMES[i], columns[i]);
    return at;
  }

  // The rows of sessions with these ids: new ones at the end.
  rows(ids, count, fresh) {
    const rows = new Uint32Array(count);
    this.reserve(this.count + count);
    if (!fresh && !this.index) this.makeIndex();
    for (let i = 0; i < count; i += 1) {
      let low = ids.low, high = ids.high;
      if (ids.width === 8) {
        low = ids.low + ids.values[2 * i];
        high = (ids.high + ids.values[2 * i + 1] + (low > 4294967295 ? 1 : 0)) >>> 0;
        low >>>= 0;
      } else if (ids.width) {
        low = ids.low + ids.values[i];
        if (low > 4294967295) high = (high + 1) >>> 0;
        low >>>= 0;
      }
      let row = fresh ? -1 : this.find(low, high);
      if (row < 0) {
        row = this.count;
        this.count += 1;
        this.idLow[row] = low;
        this.idHigh[row] = high;
        if (this.index) this.insert(row);
      }
      rows[i] = row;
    }
    return rows;
  }

  // Times in whole microseconds: nanoseconds do not fit into a number.
  times(first, duration, rows) {
    const base = (BigInt(first.high) << 32n) | BigInt(first.low);
    const baseUs = Number(base / 1000n), baseNs = Number(base % 1000n);
    const shortest = duration.low + duration.high * 4294967296;
    const firsts = numbersOf(first, rows.length), durations = numbersOf(duration, rows.length);
    for (let i = 0; i < rows.length; i += 1) {
      const ns = baseNs + firsts[i];
      this.first[rows[i]] = baseUs + Math.floor(ns / 1000);
      this.last[rows[i]] = baseUs + Math.ceil((ns + shortest + durations[i]) / 1000);
    }
  }

  makeIndex() {
    let size = 2048;
    while (size < this.count * 2 + 2) size *= 2;
    this.index = new Int32Array(size).fill(-1);
    for (let row = 0; row < this.count; row += 1) this.place(row);
  }

  place(row) {
    const mask = this.index.length - 1;
    let at = (this.idLow[row] ^ this.idHigh[row]) & mask;
    while (this.index[at] >= 0) at = (at + 1) & mask;
    this.index[at] = row;
  }

  insert(row) {
    if (this.count * 2 > this.index.length) this.makeIndex();
    else this.place(row);
  }

  find(low, high) {
    if (!this.index) this.makeIndex();
    const mask = this.index.length - 1;
    for (let at = (low ^ high) & mask; this.index[at] >= 0; at = (at + 1) & mask) {
      const row = this.index[at];
      if (this.idLow[row] === low && this.idHigh[row] === high) return row;
    }
    return -1;
  }

  findId(text) {
    return this.find(parseInt(text.slice(8), 16) >>> 0, parseInt(text.slice(0, 8), 16) >>> 0);
  }

  packets(row) {
    return this.originatorPackets[row] + this.responderPackets[row];
  }

  id(row) {
    const hex = (word) => word.toString(16).padStart(8, '0');
    return hex(this.idHigh[row]) + hex(this.idLow[row]);
  }
}

// Rows in the order of a key, by a radix sort of 32 bits of it and a last pass for what these do not tell apart.
export function sorted(rows, key, descending) {
  const count = rows.length;
  let least = Infinity, most = -Infinity;
  for (let i = 0; i < count; i += 1) {
    const value = key[rows[i]];
    if (value < least) least = value;
    if (value > most) most = value;
  }
  const scale = most > least ? 4294967295 / (most - least) : 0;
  let from = rows, to = new Uint32Array(count), keys = new Uint32Array(count), moved = new Uint32Array(count);
  for (let i = 0; i < count; i += 1) {
    const part = ((key[rows[i]] - least) * scale) >>> 0;
    keys[i] = descending ? 4294967295 - part : part;
  }
  for (const shift of [0, 16]) {
    const starts = new Uint32Array(65537);
    for (let i = 0; i < count; i += 1) starts[((keys[i] >>> shift) & 65535) + 1] += 1;
    for (let i = 0; i < 65536; i += 1) starts[i + 1] += starts[i];
    for (let i = 0; i < count; i += 1) {
      const place = starts[(keys[i] >>> shift) & 65535]++;
      to[place] = from[i];
      moved[place] = keys[i];
    }
    [from, to] = [to, from === rows ? new Uint32Array(count) : from];
    [keys, moved] = [moved, keys];
  }
  const before = descending ? (a, b) => key[a] > key[b] : (a, b) => key[a] < key[b];
  for (let i = 1; i < count; i += 1) {
    const row = from[i];
    let at = i;
    // Ties are short; a long one is as good in any order.
    while (at > 0 && i - at < 64 && before(row, from[at - 1])) { from[at] = from[at - 1]; at -= 1; }
    from[at] = row;
  }
  return from;
}
