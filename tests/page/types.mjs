// Checks that the page uses the API as its OpenAPI document has it: node types.mjs OPENAPI.json
//
// The types of the document are written to crates/page/types/api.d.ts (with RETROCAP_WRITE_TYPES=1), or have to equal those that
// are there. Then TypeScript checks the page's files against them: paths, parameters, bodies and the fields of answers.

import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import ts from 'typescript';

const root = new URL('../../crates/page/', import.meta.url).pathname, files = `${root}files/`, types = `${root}types/api.d.ts`;
const document_ = JSON.parse(readFileSync(process.argv[2], 'utf8'));

const name = (reference) => reference.split('/').pop();

function type(schema) {
  if (schema === true || schema === undefined) return 'unknown';
  if (schema.$ref) return name(schema.$ref);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  const any = schema.anyOf || schema.oneOf;
  if (any) return [...new Set(any.map(type))].join(' | ');
  if (schema.allOf) return schema.allOf.map(type).join(' & ');
  const one = (kind) => {
    if (kind === 'integer' || kind === 'number') return 'number';
    if (kind === 'array') return `(${type(schema.items)})[]`;
    if (kind === 'object' || schema.properties) return object(schema);
    return kind || 'unknown';
  };
  return Array.isArray(schema.type) ? [...new Set(schema.type.map(one))].join(' | ') : one(schema.type);
}

function object(schema) {
  const required = new Set(schema.required || []);
  const fields = Object.entries(schema.properties || {}).map(([key, value]) => `${JSON.stringify(key)}${required.has(key) ? '' : '?'}: ${type(value)};`);
  if (schema.additionalProperties && schema.additionalProperties !== true) fields.push(`[name: string]: ${type(schema.additionalProperties)};`);
  return fields.length ? `{ ${fields.join(' ')} }` : 'Record<string, unknown>';
}

// A line is one of several objects: any of their fields may be asked for.
function line(schema) {
  const any = schema.anyOf || schema.oneOf;
  return any && any.length > 1 ? any.map((one) => `Partial<${type(one)}>`).join(' & ') : type(schema);
}

function generated() {
  const out = ['// The types of the OpenAPI document, written by tests/page/types.mjs.', ''];
  for (const [key, schema] of Object.entries(document_.components.schemas)) out.push(`export type ${key} = ${type(schema)};`);
  const answers = [], lines = [], questions = [], bodies = [];
  for (const [path, verbs] of Object.entries(document_.paths)) {
    for (const [verb, operation] of Object.entries(verbs)) {
      const what = JSON.stringify(`${verb.toUpperCase()} ${path}`);
      const parameters = (operation.parameters || []).filter((one) => one.in === 'query');
      questions.push(`  ${what}: { ${parameters.map((one) => `${JSON.stringify(one.name)}?: Value;`).join(' ')} };`);
      const body = operation.requestBody?.content['application/json'];
      if (body) bodies.push(`  ${what}: ${type(body.schema)};`);
      for (const answer of Object.values(operation.responses)) {
        const json = answer.content?.['application/json'], ndjson = answer.content?.['application/x-ndjson'];
        if (json?.schema && !answers.some((one) => one.startsWith(`  ${what}:`))) answers.push(`  ${what}: ${type(json.schema)};`);
        if (ndjson) lines.push(`  ${what}: ${line(ndjson.schema['x-lines'])};`);
      }
    }
  }
  out.push('', '// A value of a parameter; a list repeats it.', 'export type Value = string | number | boolean | string[] | null | undefined;');
  for (const [key, all] of Object.entries({ Answers: answers, Lines: lines, Questions: questions, Bodies: bodies })) out.push('', `export interface ${key} {`, ...all, '}');
  return `${out.join('\n')}\n`;
}

// What TypeScript says of the page's files; `changed` replaces one of them.
function mistakes(changed = {}) {
  const options = { allowJs: true, checkJs: true, noEmit: true, strict: false, skipLibCheck: false, allowImportingTsExtensions: true, target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler, lib: ['lib.es2023.d.ts', 'lib.dom.d.ts', 'lib.dom.iterable.d.ts'], types: [] };
  const host = ts.createCompilerHost(options), { readFile } = host;
  const read = (path) => changed[path] ?? readFile(path);
  host.readFile = read;
  const { getSourceFile } = host;
  host.getSourceFile = (path, version, ...more) => (changed[path] ? ts.createSourceFile(path, changed[path], version, true) : getSourceFile(path, version, ...more));
  const names = readdirSync(files).filter((file) => file.endsWith('.js') && file !== 'dissector.js').map((file) => files + file);
  const program = ts.createProgram([...names, types], options, host);
  return ts.getPreEmitDiagnostics(program).map((one) => {
    const at = one.file ? one.file.getLineAndCharacterOfPosition(one.start) : { line: 0 };
    return `${one.file?.fileName.replace(root, '') || ''}:${at.line + 1}: ${ts.flattenDiagnosticMessageText(one.messageText, '\n')}`;
  });
}

// The check has to fail where the page asks for what the document does not have.
function notices() {
  const tries = [
    ['talkers.js', 'sum.bytes.out', 'sum.bytes.outward'], ['main.js', "'GET /v1/columns', { since }", "'GET /v1/columns', { sinse: since }"],
    ['strip.js', "'GET /v1/timeline'", "'GET /v1/timelines'"], ['detail.js', 'for_s: Number', 'for_seconds: Number'], ['detail.js', 'flow.cut_at', 'flow.cut_on'],
  ];
  return tries.filter(([file, from, to]) => {
    const text = readFileSync(files + file, 'utf8');
    if (!text.includes(from)) throw new Error(`${file} has no ${from}`);
    return !mistakes({ [files + file]: text.replace(from, to) }).length;
  }).map(([file, , to]) => `nothing is said of ${to} in ${file}`);
}

const text = generated();
if (process.env.RETROCAP_WRITE_TYPES) {
  mkdirSync(`${root}types`, { recursive: true });
  writeFileSync(types, text);
}
const wrong = readFileSync(types, 'utf8') === text ? [] : ['crates/page/types/api.d.ts is not what the OpenAPI document has: run with RETROCAP_WRITE_TYPES=1'];
wrong.push(...mistakes());
if (!wrong.length) wrong.push(...notices());
console.log(wrong.length ? wrong.join('\n') : 'the page and the OpenAPI document agree');
process.exit(wrong.length ? 1 : 0);
