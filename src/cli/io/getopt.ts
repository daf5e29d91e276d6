/**
 * Options as the C library's getopt_long reads them, with its messages: QEMU's disk exerciser
 * prints those as they come, for its own options and for those of its commands.
 */

/** One option: a letter, a long name, or both. */
export interface OptionShape {
  readonly letter?: string;
  readonly long?: string;
  readonly value?: boolean;
}

/** What was found, up to the first thing that is wrong. */
export interface FoundOptions {
  /** By letter, or by long name where there is no letter. In the order given. */
  readonly options: readonly { readonly name: string; readonly value: string }[];
  readonly operands: readonly string[];
  /** What is wrong, for people; undefined where nothing is. */
  readonly problem: string | undefined;
}

/** What is left of a command line, and what came out of it so far. */
interface Scan {
  readonly args: readonly string[];
  readonly shapes: readonly OptionShape[];
  next: number;
  readonly options: { name: string; value: string }[];
  readonly operands: string[];
  problem: string | undefined;
}

/** Letters as getopt takes them: a colon follows those that have a value. */
export function letters(text: string): OptionShape[] {
  return [...text.matchAll(/(.)(:?)/g)].map(([, letter, colon]) => ({
    letter: letter as string,
    value: colon === ':',
  }));
}

/** Splits a command line; operands may stand between options. */
export function getopt(args: readonly string[], shapes: readonly OptionShape[]): FoundOptions {
  const scan: Scan = { args, shapes, next: 0, options: [], operands: [], problem: undefined };
  while (scan.next < args.length && scan.problem === undefined) {
    const arg = args[scan.next++]!;
    if (arg === '--') {
      scan.operands.push(...args.slice(scan.next));
      break;
    }
    const long = arg.startsWith('--') && shapes.some((shape) => shape.long !== undefined);
    if (long) takeLong(scan, arg);
    else if (arg.startsWith('-') && arg !== '-') takeLetters(scan, arg);
    else scan.operands.push(arg);
  }
  return scan;
}

function takeLetters(scan: Scan, arg: string): void {
  for (let at = 1; at < arg.length; at++) {
    const letter = arg[at]!;
    const shape = scan.shapes.find((candidate) => candidate.letter === letter);
    if (!shape) {
      scan.problem = `invalid option -- '${letter}'`;
      return;
    }
    if (!shape.value) {
      scan.options.push({ name: letter, value: '' });
      continue;
    }
    const value = at + 1 < arg.length ? arg.slice(at + 1) : scan.args[scan.next++];
    if (value === undefined) scan.problem = `option requires an argument -- '${letter}'`;
    else scan.options.push({ name: letter, value });
    return;
  }
}

function takeLong(scan: Scan, arg: string): void {
  const equals = arg.indexOf('=');
  const typed = equals < 0 ? arg.slice(2) : arg.slice(2, equals);
  const matches = scan.shapes.filter(({ long }) => long?.startsWith(typed));
  const shape = matches.find(({ long }) => long === typed) ?? matches[0];
  if (shape?.long === undefined) {
    scan.problem = `unrecognized option '${equals < 0 ? arg : `--${typed}`}'`;
    return;
  }
  if (shape.long !== typed && matches.length > 1) {
    const possible = matches.map(({ long }) => `'--${long}'`).join(' ');
    scan.problem = `option '${arg}' is ambiguous; possibilities: ${possible}`;
    return;
  }
  const name = shape.letter ?? shape.long;
  if (!shape.value) {
    if (equals >= 0) scan.problem = `option '--${shape.long}' doesn't allow an argument`;
    else scan.options.push({ name, value: '' });
    return;
  }
  const value = equals < 0 ? scan.args[scan.next++] : arg.slice(equals + 1);
  if (value === undefined) scan.problem = `option '--${shape.long}' requires an argument`;
  else scan.options.push({ name, value });
}
