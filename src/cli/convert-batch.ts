/**
 * `convert --batch LIST`: many conversions by one pool of workers. A line of the list is one of
 *
 *   SOURCE… TARGET [OPTION…]     words, quoted as in a shell where they need it
 *   {"source": "a.qcow2", "target": "b.qcow2", "options": ["-c"]}     sources may be an array
 *
 * Empty lines and those that start with `#` are left out. The options of the command line hold for
 * all, those of a line for it alone. A line of JSON tells of each conversion that has come to its
 * end; one that fails does not stop the others. A target that is whole and newer than its sources
 * is left as it is, so that a list may be run again.
 */

import { isQcow2Error } from '../base/errors.ts';
import { decodeText } from '../base/text.ts';
import { type Host, UsageError } from './command.ts';
import { convertImages } from './convert-images.ts';
import { type ConvertRequest, parseConvert } from './convert-request.ts';
import { openImage } from './open-image.ts';
import type { Progress } from './progress.ts';

/** A line of the list. */
interface Entry {
  readonly line: number;
  readonly sources: readonly string[];
  readonly target: string;
  readonly options: readonly string[];
}

/** What became of an entry. */
type Outcome =
  | { readonly status: 'done'; readonly result: object; readonly seconds: number }
  | { readonly status: 'skipped' }
  | { readonly status: 'failed'; readonly error: string; readonly code?: string };

/** @returns 0 where all is done, 1 where something failed */
export async function convertBatch(host: Host, args: readonly string[]): Promise<number> {
  const { list, options } = splitArguments(args);
  const entries = parseList(await readList(host, list));
  const quiet: Host = Object.create(host, {
    // What the conversions print goes to a display of its own.
    out: { value: () => {} },
    tell: { value: () => {} },
    // For the process as a whole, and the next image may have need of more threads.
    moveInBackground: { value: undefined },
  });
  let failed = 0;
  for (const [index, entry] of entries.entries()) {
    if (host.interrupted.aborted) return 1;
    const outcome = await carryOut(quiet, entry, {
      options,
      progress: () => batchProgress(host, { index, count: entries.length, name: entry.target }),
    });
    if (outcome.status === 'failed') failed++;
    const { sources, target } = entry;
    const source = sources.length === 1 ? sources[0] : sources;
    host.out(`${JSON.stringify({ source, target, ...outcome })}\n`);
  }
  return failed === 0 ? 0 : 1;
}

function splitArguments(args: readonly string[]): { list: string; options: string[] } {
  const options: string[] = [];
  let list: string | undefined;
  for (let at = 0; at < args.length; at++) {
    const arg = args[at] as string;
    if (arg === '--batch') list = args[++at];
    else if (arg.startsWith('--batch=')) list = arg.slice('--batch='.length);
    else options.push(arg);
  }
  if (list === undefined) throw new UsageError("missing argument for option '--batch'", true);
  return { list, options };
}

async function readList(host: Host, path: string): Promise<string> {
  const file = path === '-' ? await host.openInput() : host.openFile(path);
  try {
    const bytes = new Uint8Array(file.size());
    file.read(0, bytes);
    return decodeText(bytes);
  } finally {
    file.close();
  }
}

function parseList(text: string): Entry[] {
  const entries: Entry[] = [];
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    const entry = line.startsWith('{') ? parseObject(line) : parseWords(line);
    if (!entry) throw new UsageError(`line ${index + 1} of the list: no source and target`);
    entries.push({ line: index + 1, ...entry });
  }
  return entries;
}

function parseObject(line: string): Omit<Entry, 'line'> | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  const { source, target, options = [] } = value as Record<string, unknown>;
  const sources = Array.isArray(source) ? source : [source];
  const words = typeof options === 'string' ? splitWords(options) : options;
  const isText = (list: unknown): list is string[] =>
    Array.isArray(list) && list.every((item) => typeof item === 'string');
  if (!isText(sources) || sources.length === 0 || typeof target !== 'string' || !isText(words)) {
    return undefined;
  }
  return { sources, target, options: words };
}

/** Words of a line; options stand behind the target. */
function parseWords(line: string): Omit<Entry, 'line'> | undefined {
  const words = splitWords(line);
  const first = words.findIndex((word) => word.startsWith('-') && word !== '-');
  const names = first < 0 ? words : words.slice(0, first);
  const target = names.at(-1);
  if (target === undefined || names.length < 2) return undefined;
  return { sources: names.slice(0, -1), target, options: first < 0 ? [] : words.slice(first) };
}

/** Splits a line at blanks, but not within quotes; a backslash takes the next letter as it is. */
function splitWords(line: string): string[] {
  const words: string[] = [];
  for (const [, word = ''] of line.matchAll(/((?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+)/g)) {
    words.push(
      word.replace(/\\(.)|"((?:[^"\\]|\\.)*)"|'([^']*)'/g, (_, letter, double, single) => {
        return letter ?? single ?? (double as string).replace(/\\(.)/g, '$1');
      }),
    );
  }
  return words;
}

interface Surroundings {
  readonly options: readonly string[];
  readonly progress: () => Progress;
}

async function carryOut(
  host: Host,
  entry: Entry,
  { options, progress }: Surroundings,
): Promise<Outcome> {
  const started = performance.now();
  try {
    const args = [...options, ...entry.options, '--', ...entry.sources, entry.target];
    const request = parseConvert(args);
    if ('help' in request) throw new UsageError('a list asks for no help');
    if (request.refusal) throw request.refusal;
    if (await isComplete(host, request)) return { status: 'skipped' };
    const none: Progress = { update() {}, end() {}, stop() {} };
    const result = await convertImages(host, request, () => (request.progress ? progress() : none));
    const seconds = Math.round(performance.now() - started) / 1000;
    return { status: 'done', result, seconds };
  } catch (cause) {
    if (isQcow2Error(cause)) {
      return { status: 'failed', error: cause.message, code: cause.code };
    }
    if (!(cause instanceof UsageError)) throw cause;
    return { status: 'failed', error: cause.message };
  }
}

/** The target is there, opens, has the size of its sources, and is newer than they are. */
async function isComplete(host: Host, request: ConvertRequest): Promise<boolean> {
  const { sources, target, outputFormat, create, untrusted, format, snapshot } = request;
  if (!create || !host.exists(target) || sources.includes('-')) return false;
  const made = host.modifiedAt(target);
  if (sources.some((source) => !host.exists(source) || host.modifiedAt(source) > made)) {
    return false;
  }
  const sizeOf = async (path: string, options: Parameters<typeof openImage>[2]) => {
    const disk = await openImage(host, path, options);
    try {
      return disk.size;
    } finally {
      await disk.close();
    }
  };
  try {
    let size = 0;
    for (const source of sources) size += await sizeOf(source, { format, untrusted, snapshot });
    return (await sizeOf(target, { format: outputFormat, untrusted })) === size;
  } catch (cause) {
    if (isQcow2Error(cause) || cause instanceof UsageError) return false;
    throw cause;
  }
}

/** Between two lines of progress, milliseconds. */
const REDRAW_MS = 200;

/** How far one image is, and how many there are: one line on standard error, written over. */
function batchProgress(
  host: Host,
  { index, count, name }: { readonly index: number; readonly count: number; readonly name: string },
): Progress {
  let last = Number.NEGATIVE_INFINITY;
  const draw = (part: number) => {
    const all = Math.floor(((index + part) / count) * 100);
    const own = Math.floor(part * 100);
    host.note(`\r\x1b[K${index + 1} of ${count} (${all}%)  ${name}  ${own}%`);
  };
  return {
    update(done, total) {
      const now = performance.now();
      if (now - last < REDRAW_MS) return;
      last = now;
      draw(total > 0 ? done / total : 1);
    },
    end() {
      draw(1);
      host.note('\n');
    },
    stop() {
      host.note('\n');
    },
  };
}
