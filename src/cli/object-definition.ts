/**
 * What `--object` defines, loaded where it is given: `secret,id=s0,data=…` or `file=…`, as they are
 * or in Base64, and encrypted with another one where `keyid` names it. Messages never say what is
 * in one.
 */
import { decodeText, encodeText } from '../base/text.ts';
import { type Host, UsageError } from './command.ts';
import { decryptSecret } from './encrypted-secret.ts';

/** Objects that QEMU's tools know, and that there is nothing for here. */
const OTHER_OBJECTS = [
  ...['authz-list', 'authz-pam', 'authz-simple', 'iothread', 'main-loop', 'pr-manager-helper'],
  ...['secret_keyring', 'thread-context', 'throttle-group', 'tls-cipher-suites'],
  ...['tls-creds-anon', 'tls-creds-psk', 'tls-creds-x509'],
];

/** The settings that an object of this kind takes. */
const SETTINGS = ['qom-type', 'id', 'data', 'file', 'format', 'keyid', 'iv'];
const IDENTIFIER = /^[a-z][a-z0-9._-]*$/i;
/** Names lead into structures by dots. */
const NAME = /^[a-z][\w.-]*$/i;
const BASE64 = /^[A-Za-z0-9+/=]*$/;
/** Longer files are no passphrases. */
const FILE_BYTES_MAX = 16 * 2 ** 20;

/** `name=value` pairs, commas in values written twice; what has no `=` is the value of `first`. */
export function parseKeyValues(text: string, first: string): Map<string, string> {
  const values = new Map<string, string>();
  let at = 0;
  while (at < text.length) {
    let word = '';
    for (; at < text.length; at++) {
      if (text[at] === ',' && text[++at] !== ',') break;
      word += text[at];
    }
    const equals = word.indexOf('=');
    if (equals < 0 && values.size === 0 && first !== '') {
      values.set(first, word);
      continue;
    }
    const name = equals < 0 ? word : word.slice(0, equals);
    if (!NAME.test(name)) throw new UsageError(`Invalid parameter '${name}'`);
    if (equals >= 0) values.set(name, word.slice(equals + 1));
    else throw new UsageError(`Expected '=' after parameter '${word}'`);
  }
  return values;
}

/**
 * Defines the secret that an option's text describes, and hides it from those who list processes.
 * @throws UsageError in QEMU's words
 */
export function defineObject(
  host: Pick<Host, 'openFile' | 'secrets' | 'hideArguments'>,
  text: string,
): void {
  host.hideArguments?.();
  const { secrets } = host;
  const values = parseKeyValues(text, 'qom-type');
  const type = values.get('qom-type');
  if (type === undefined) throw new UsageError("Parameter 'qom-type' is missing");
  if (OTHER_OBJECTS.includes(type)) throw new UsageError(`invalid object type: ${type}`);
  if (type !== 'secret') {
    throw new UsageError(`Parameter 'qom-type' does not accept value '${type}'`);
  }
  const id = values.get('id');
  if (id === undefined) throw new UsageError("Parameter 'id' is missing");
  const unknown = [...values.keys()].find((name) => !SETTINGS.includes(name));
  if (unknown !== undefined) throw new UsageError(`Parameter '${unknown}' is unexpected`);
  const format = values.get('format') ?? 'raw';
  if (format !== 'raw' && format !== 'base64') {
    throw new UsageError(`Parameter 'format' does not accept value '${format}'`);
  }
  if (!IDENTIFIER.test(id)) {
    const hintText =
      "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.\n";
    throw Object.assign(new UsageError("Parameter 'id' expects an identifier"), { hintText });
  }
  if (secrets.has(id)) {
    const message = `attempt to add duplicate property '${id}' to object (type 'container')`;
    throw new UsageError(message);
  }
  const given = contentOf(host, values.get('data'), values.get('file'));
  const keyId = values.get('keyid');
  const key = keyId === undefined ? undefined : secrets.bytesOf(keyId);
  const iv = values.get('iv');
  const vector = key && iv !== undefined ? fromBase64(encodeText(iv)) : undefined;
  const bytes = format === 'base64' ? fromBase64(given) : given;
  secrets.set(id, key ? decryptSecret(bytes, { key, vector }) : bytes);
}

function contentOf(
  host: Pick<Host, 'openFile'>,
  data: string | undefined,
  file: string | undefined,
): Uint8Array {
  if (data !== undefined && file !== undefined) {
    throw new UsageError("'file' and 'data' are mutually exclusive");
  }
  if (data !== undefined) return encodeText(data);
  if (file === undefined) throw new UsageError("Either 'file' or 'data' must be provided");
  return readSecretFile(host, file);
}

function readSecretFile(host: Pick<Host, 'openFile'>, path: string): Uint8Array {
  try {
    const storage = host.openFile(path);
    try {
      const bytes = new Uint8Array(Math.min(FILE_BYTES_MAX, storage.size()));
      return bytes.subarray(0, storage.read(0, bytes));
    } finally {
      storage.close();
    }
  } catch (cause) {
    const why = (cause as Error).message.replace(/^Could not open '.*': /, '');
    throw new UsageError(`Unable to read ${path}: Failed to open file “${path}”: ${why}`);
  }
}

/** Characters in groups of four, as the C library of QEMU's choice reads them. */
function fromBase64(text: Uint8Array): Uint8Array {
  const chars = decodeText(text).replaceAll('\n', '');
  if (!BASE64.test(chars)) throw new UsageError('Base64 data contains invalid characters');
  const bytes: number[] = [];
  // What is less than a group means nothing; `=` stands for zeros, and at its end for no byte.
  for (let at = 0; at + 4 <= chars.length; at += 4) {
    const group = chars.slice(at, at + 4);
    const three = atob(group.replaceAll('=', 'A'));
    bytes.push(three.charCodeAt(0));
    if (group[2] !== '=') bytes.push(three.charCodeAt(1));
    if (group[3] !== '=') bytes.push(three.charCodeAt(2));
  }
  return Uint8Array.from(bytes);
}
