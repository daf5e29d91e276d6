/** The command line of `qcow2-io`, and what it makes the tool do. */
import { UsageError } from '../command.ts';
import { versionText } from '../help/version-text.ts';
import { defineObject } from '../object-definition.ts';
import { getopt, type OptionShape } from './getopt.ts';
import { CommandFailure } from './io-command.ts';
import type { IoHost } from './io-host.ts';
import { DEFAULT_FLAGS, type OpenFlags, withFlag } from './open-flags.ts';
import { usageText } from './usage.ts';

const OPTIONS: readonly OptionShape[] = [
  { letter: 'h', long: 'help' },
  { letter: 'V', long: 'version' },
  { letter: 'c', long: 'cmd', value: true },
  { letter: 'f', long: 'format', value: true },
  { letter: 'r', long: 'read-only' },
  { letter: 's', long: 'snapshot' },
  { letter: 'n', long: 'nocache' },
  { letter: 'C', long: 'copy-on-read' },
  { letter: 'm', long: 'misalign' },
  { letter: 'k', long: 'native-aio' },
  { letter: 'i', long: 'aio', value: true },
  { letter: 'd', long: 'discard', value: true },
  { letter: 't', long: 'cache', value: true },
  { letter: 'T', long: 'trace', value: true },
  { long: 'object', value: true },
  { long: 'image-opts' },
  { letter: 'U', long: 'force-share' },
];

/** What the command line asks for. */
export interface ToolRequest {
  readonly commands: readonly string[];
  readonly filename: string | undefined;
  readonly flags: OpenFlags;
  /** The file's name is a list of settings. */
  readonly imageOptions: boolean;
}

/** Runs the tool: gives its exit code. */
export async function runTool(host: IoHost, args: readonly string[]): Promise<number> {
  let request: ToolRequest | number;
  try {
    request = parseRequest(host, args);
    if (typeof request === 'number') return request;
  } catch (cause) {
    if (!(cause instanceof CommandFailure)) throw cause;
    host.error(cause.message);
    return 1;
  }
  // Commands and the engine behind them, which --version and --help do without.
  const { runRequest } = await import('./run.ts');
  return runRequest(host, request);
}

/** Defines a secret. */
function define(host: IoHost, text: string): void {
  try {
    defineObject(host, text);
  } catch (cause) {
    if (!(cause instanceof UsageError)) throw cause;
    throw new CommandFailure(cause.message, 'program');
  }
}

/** @returns an exit code where there is nothing more to do */
function parseRequest(host: IoHost, args: readonly string[]): ToolRequest | number {
  const { options, operands, problem } = getopt(args, OPTIONS);
  const commands: string[] = [];
  let flags = DEFAULT_FLAGS;
  let imageOptions = false;
  for (const { name, value } of options) {
    if (name === 'h' || name === 'V') {
      host.out(name === 'h' ? usageText(host.program) : versionText(host.program));
      return 0;
    }
    if (name === 'object') {
      define(host, value);
      continue;
    }
    if (name === 'image-opts') imageOptions = true;
    if (name === 'c') commands.push(value);
    else if (name === 'f') flags = { ...flags, format: value };
    else flags = withFlag(flags, name, value);
  }
  if (problem !== undefined) host.error(problem);
  if (problem !== undefined || operands.length > 1) {
    host.out(usageText(host.program));
    return 1;
  }
  if (imageOptions && flags.format !== undefined && operands.length > 0) {
    throw new CommandFailure('--image-opts and -f are mutually exclusive', 'program');
  }
  return { commands, filename: operands[0], flags, imageOptions };
}
