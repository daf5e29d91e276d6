/** What the process was called with, byte for byte. */
import { readFileSync } from 'node:fs';
import { decodeText } from '../base/text.ts';

/** Where Linux has the arguments, each with a NUL behind it. */
const COMMAND_LINE = '/proc/self/cmdline';

/** Arguments behind the script. Node has no bytes for those that are not UTF-8: Linux does. */
export function processArguments(): readonly string[] {
  const args = process.argv.slice(2);
  return args.some((arg) => arg.includes('\ufffd')) ? (exactArguments(args.length) ?? args) : args;
}

function exactArguments(count: number): readonly string[] | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync(COMMAND_LINE);
  } catch {
    return undefined;
  }
  const args: string[] = [];
  for (let at = 0, end = bytes.indexOf(0); end >= 0; at = end + 1, end = bytes.indexOf(0, at)) {
    args.push(decodeText(bytes.subarray(at, end)));
  }
  return args.slice(-count);
}
