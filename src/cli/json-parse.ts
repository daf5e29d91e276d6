/**
 * JSON as QEMU's tools take it behind `json:`, and what is wrong with it in their words: strings in
 * either kind of quotes, no name twice in an object, one value in all. RFC 8259 has the rest.
 */
import { Qcow2Error } from '../base/errors.ts';

/** A value. A whole number keeps all its digits where 64 bits hold it. */
export type ParsedJson = string | number | bigint | boolean | null | ParsedJson[] | ParsedObject;

/** Members in the order that they were written in. */
export type ParsedObject = Map<string, ParsedJson>;

/** What the text is made of. */
interface Token {
  readonly kind: 'mark' | 'number' | 'word' | 'string';
  readonly text: string;
}

const SPACE = /[ \t\r\n]*/y;
const MARK = /[{}[\],:]/y;
// A zero takes an exponent only behind its fraction.
const NUMBER =
  /-?(?:0(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?)?|[1-9][0-9]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)/y;
/** What may come to be a number, as far as it goes. */
const NUMBER_BEGUN =
  /-?(?:0(?:\.(?:[0-9]+(?:[eE][+-]?)?)?)?|[1-9][0-9]*(?:\.(?:[0-9]+(?:[eE][+-]?)?)?|[eE][+-]?)?)?/y;
const WORD = /[a-z]+/y;
// Control characters may not stand in strings.
const BEYOND = '\\u{dcfd}\\u{dd00}-\\u{10ffff}';
const DOUBLE = `"(?:[ !#-[\\]-${BEYOND}]|\\\\[ -${BEYOND}])*`;
const SINGLE = `'(?:[ -&(-[\\]-${BEYOND}]|\\\\[ -${BEYOND}])*`;
const STRING = new RegExp(`${DOUBLE}"|${SINGLE}'`, 'uy');
const STRING_BEGUN = new RegExp(`${DOUBLE}\\\\?|${SINGLE}\\\\?`, 'uy');

const ESCAPED: Readonly<Record<string, string>> = {
  ...{ '"': '"', "'": "'", '\\': '\\', '/': '/' },
  ...{ b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' },
};
/** Objects and lists within each other. */
const DEPTH_MAX = 1024;

/**
 * The value that a text has.
 * @throws Qcow2Error OUT_OF_RANGE for a text that has none, or several
 */
export function parseJson(text: string): ParsedJson {
  const tokens = tokensOf(text);
  const first = nextValue(tokens);
  if (first === undefined) throw wrong('Expecting a JSON value');
  let another: unknown;
  try {
    another = nextValue(tokens);
  } catch {
    another = true;
  }
  if (another !== undefined) throw wrong('Expecting at most one JSON value');
  return first;
}

/** Tokens, one at a time: what is wrong behind the first value is another matter. */
function* tokensOf(text: string): Generator<Token, undefined> {
  for (let at = 0; ; ) {
    at += match(SPACE, text, at).length;
    if (at === text.length) return undefined;
    const kind = kindAt(text[at] as string);
    const found = match(PATTERNS[kind], text, at);
    const begun = match(BEGUN[kind], text, at);
    const more = /^-?0$/.test(found) && /[0-9]/.test(text[at + begun.length] ?? '');
    if (begun.length > found.length || found === '' || more) {
      throw syntax(`stray '${text.slice(at, at + begun.length + 1)}'`);
    }
    yield { kind, text: found };
    at += found.length;
  }
}

const PATTERNS = { mark: MARK, number: NUMBER, word: WORD, string: STRING } as const;
const BEGUN = { mark: MARK, number: NUMBER_BEGUN, word: WORD, string: STRING_BEGUN } as const;

function kindAt(first: string): Token['kind'] {
  if (first === '"' || first === "'") return 'string';
  if (/[-0-9]/.test(first)) return 'number';
  return /[a-z]/.test(first) ? 'word' : 'mark';
}

function match(pattern: RegExp, text: string, at: number): string {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0] ?? '';
}

/**
 * The next value; undefined where nothing follows. All tokens of it are read before it is looked
 * at, so that a character which may not stand anywhere is told before what does not fit.
 */
function nextValue(tokens: Iterator<Token, undefined>): ParsedJson | undefined {
  const own: Token[] = [];
  let braces = 0;
  let brackets = 0;
  do {
    const { value: token } = tokens.next();
    if (!token) break;
    if (token.text === '{') braces++;
    if (token.text === '}') braces--;
    if (token.text === '[') brackets++;
    if (token.text === ']') brackets--;
    if (braces + brackets > DEPTH_MAX) throw wrong('JSON nesting depth limit exceeded');
    own.push(token);
  } while (braces >= 0 && brackets >= 0 && braces + brackets > 0);
  return own.length === 0 ? undefined : new Reader(own).value();
}

/** Goes through the tokens of one value. */
class Reader {
  private at = 0;

  constructor(private readonly tokens: readonly Token[]) {}

  value(): ParsedJson {
    const { kind, text } = this.next();
    if (kind === 'string') return stringOf(text);
    if (kind === 'number') return numberOf(text);
    if (kind === 'word') return wordOf(text);
    if (text === '{') return this.object();
    if (text === '[') return this.list();
    throw syntax('expecting value');
  }

  private object(): ParsedObject {
    const members: ParsedObject = new Map();
    while (!this.ends('}', members.size, 'expected separator in dict')) {
      const name = this.value();
      if (typeof name !== 'string') throw syntax('key is not a string in object');
      if (this.next().text !== ':') throw syntax('missing : in object pair');
      const value = this.value();
      if (members.has(name)) throw syntax('duplicate key');
      members.set(name, value);
    }
    return members;
  }

  private list(): ParsedJson[] {
    const items: ParsedJson[] = [];
    while (!this.ends(']', items.length, 'expected separator in list')) items.push(this.value());
    return items;
  }

  /** Whether it ends here; behind what there is already a comma has to come otherwise. */
  private ends(mark: string, before: number, otherwise: string): boolean {
    const { text } = this.peek();
    if (text === mark || before > 0) this.at++;
    if (text !== mark && before > 0 && text !== ',') throw syntax(otherwise);
    return text === mark;
  }

  private peek(): Token {
    const token = this.tokens[this.at];
    if (!token) throw syntax('premature EOI');
    return token;
  }

  private next(): Token {
    const token = this.peek();
    this.at++;
    return token;
  }
}

/** What came from bytes that are no character, and what never is one. */
const NONE = /[\u{dc80}-\u{dcff}]|\p{Noncharacter_Code_Point}/u;

/** Whether a stray byte is one of the two that QEMU takes for a NUL. */
function isLongZero(text: string, at: number): boolean {
  return text.startsWith('\udcc0\udc80', at) || text.startsWith('\udcc0\udc80', at - 1);
}

function stringOf(quoted: string): string {
  let text = '';
  for (let at = 1; at < quoted.length - 1; at++) {
    const character = String.fromCodePoint(quoted.codePointAt(at) as number);
    if (character !== '\\') {
      if (NONE.test(character) && !isLongZero(quoted, at)) {
        throw syntax('invalid UTF-8 sequence in string');
      }
      text += character;
      at += character.length - 1;
      continue;
    }
    const escaped = quoted[++at] as string;
    const plain = ESCAPED[escaped];
    if (plain === undefined && escaped !== 'u') throw syntax('invalid escape sequence in string');
    text += plain ?? characterAt(quoted, at - 1);
    if (plain === undefined) at += ESCAPE.exec(quoted.slice(at - 1))![0].length - 2;
  }
  return text;
}

const ESCAPE = /^\\u(?:d[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|[0-9a-f]{4})/i;

/** What `\u` and four digits stand for; a character beyond 16 bits is two of these. */
function characterAt(quoted: string, at: number): string {
  const [found = ''] = ESCAPE.exec(quoted.slice(at)) ?? [];
  const character = String.fromCharCode(
    ...found
      .split('\\u')
      .slice(1)
      .map((digits) => Number.parseInt(digits, 16)),
  );
  const code = character.codePointAt(0) ?? 0xd800;
  const isNone = (code >= 0xd800 && code < 0xe000) || (code >= 0xfdd0 && code <= 0xfdef);
  // A zero would end the text for whoever gets it.
  if (!isNone && (code & 0xfffe) !== 0xfffe) return character === '\0' ? '\uFFFD' : character;
  throw syntax(`${quoted.slice(at, at + 6)} is not a valid Unicode character`);
}

function numberOf(text: string): number | bigint {
  if (!/^-?\d+$/.test(text)) return Number(text);
  const value = BigInt(text);
  return value >= -(2n ** 63n) && value < 2n ** 64n ? value : Number(text);
}

function wordOf(text: string): boolean | null {
  if (text === 'null') return null;
  if (text === 'true' || text === 'false') return text === 'true';
  throw syntax(`invalid keyword '${text}'`);
}

function syntax(what: string): Qcow2Error {
  return wrong(`JSON parse error, ${what}`);
}

function wrong(message: string): Qcow2Error {
  return new Qcow2Error('OUT_OF_RANGE', message);
}
