// What a session said of who takes part: certificate, fingerprints, and the messages of its protocol.

import * as api from './api.js';
import { counted, exactTime, microseconds, time } from './format.js';
import { el } from './ui.js';

const MESSAGES = 500;
const FINGERPRINTS = { ja3: 'JA3', ja4: 'JA4', ja3s: 'JA3S', hassh: 'HASSH', hassh_server: 'HASSH of the server' };
const SHOWN_APART = new Set([...Object.keys(FINGERPRINTS), 'subject', 'issuer', 'names', 'not_before', 'not_after', 'self_signed', 'server_name_sent', 'serial']);

export const facts = (rows) => el('dl', { class: 'facts' }, ...rows.filter(([, value]) => value)
  .flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, String(value))]));

/** @import { SessionMessage } from '../types/api.d.ts' */

// Whether a certificate was valid when the session used it.
function validity({ fields, time: at }) {
  const used = microseconds(at), from = fields.not_before * 1e6, until = fields.not_after * 1e6;
  const words = used < from ? ', not yet valid in this session' : used > until ? ', expired in this session' : '';
  return `${time(from)} to ${time(until)}${words}`;
}

function certificate(message) {
  const { fields } = message;
  return el('section', { class: 'certificate' }, el('h3', {}, `Certificate of the ${message.direction}`), facts([
    ['Subject', fields.subject], ['Issuer', fields.issuer], ['Names', String(fields.names || '').replace(/DNSName\(([^)]*)\)/g, '$1')], ['Valid', validity(message)],
    ['Self-signed', fields.self_signed ? 'yes: the subject is its own issuer' : 'no'], ['Serial number', fields.serial],
  ]));
}

function fingerprints(messages) {
  const rows = new Map();
  for (const { direction, fields } of messages) {
    for (const [key, name] of Object.entries(FINGERPRINTS)) if (fields[key]) rows.set(`${name} (${direction})`, fields[key]);
  }
  return rows.size ? el('section', {}, el('h3', {}, 'Fingerprints'), facts([...rows])) : null;
}

function listed(messages) {
  const fields = ({ fields: all }) => Object.entries(all).filter(([name]) => !SHOWN_APART.has(name)).map(([name, value]) => `${name} ${value}`).join(', ');
  return el('section', {}, el('h3', {}, 'Messages'), el('ol', { class: 'lines', id: 'messages' }, ...messages.map((message) => el('li', { class: message.direction, title: exactTime(microseconds(message.time)) },
    `${message.direction === 'originator' ? '→' : '←'} ${message.name} ${message.words.join(' ')} `, el('code', {}, fields(message))))));
}

// Shows it below what is known of the session.
export async function said(selection, place) {
  const note = el('p', { class: 'note', id: 'said-note' }, 'Reading …');
  place.replaceChildren(note);
  /** @type {SessionMessage[]} */
  const messages = [];
  try {
    const end = await api.lines('GET /v1/messages', { ...selection, count: MESSAGES }, (message) => messages.push(message));
    const hello = messages.find((message) => message.name === 'tls.server_hello');
    const hidden = hello?.fields.version === 'TLSv1.3' && !messages.some((message) => message.name === 'tls.certificate');
    note.textContent = [counted(messages.length, 'message'), hidden ? 'TLS 1.3 encrypts the certificate' : '', end['retrocap-note']].filter(Boolean).join('. ');
    place.append(...[fingerprints(messages), ...messages.filter((message) => message.name === 'tls.certificate').map(certificate), listed(messages)].filter(Boolean));
  } catch (error) {
    note.textContent = error.message;
  }
}
