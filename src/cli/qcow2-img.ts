/** `qcow2-img`: what qemu-img is to QEMU. Each subcommand's code is loaded when it is called. */

import { isQcow2Error } from '../base/errors.ts';
import { runAgain } from './address-space.ts';
import { type Command, type Host, UsageError } from './command.ts';
import { takeLeadingOptions } from './getopt.ts';
import { definitionOf, takeGlobalOptions } from './global-options.ts';
import { codeOfOutput, dieBySignal, leave, nodeHost } from './host-node.ts';
import type { OptionSpec } from './options.ts';
import { processArguments } from './process-arguments.ts';

/** Subcommands, and where their code is. */
const COMMANDS: Record<string, () => Promise<Command>> = {
  check: async () => (await import('./commands/check.ts')).check,
  amend: async () => (await import('./commands/amend.ts')).amend,
  bench: async () => (await import('./commands/bench.ts')).bench,
  bitmap: async () => (await import('./commands/bitmap.ts')).bitmap,
  commit: async () => (await import('./commands/commit.ts')).commit,
  compare: async () => (await import('./commands/compare.ts')).compare,
  convert: async () => (await import('./commands/convert.ts')).convert,
  create: async () => (await import('./commands/create.ts')).create,
  dd: async () => (await import('./commands/dd.ts')).dd,
  info: async () => (await import('./commands/info.ts')).info,
  map: async () => (await import('./commands/map.ts')).map,
  rebase: async () => (await import('./commands/rebase.ts')).rebase,
  measure: async () => (await import('./commands/measure.ts')).measure,
  resize: async () => (await import('./commands/resize.ts')).resize,
  snapshot: async () => (await import('./commands/snapshot.ts')).snapshot,
};

/** Options of the tool itself, before the command. */
const OPTIONS: readonly OptionSpec[] = [
  { name: 'help', short: 'h', value: false },
  { name: 'version', short: 'V', value: false },
  // Nothing here has events to trace.
  { name: 'trace', short: 'T', value: true },
  { name: 'demo', value: false, own: true },
];

async function runCommand(host: Host, args: readonly string[]): Promise<number> {
  if (args.length === 0) throw new UsageError('Not enough arguments', true);
  let asked: string | undefined;
  const [name, ...rest] = takeLeadingOptions(host.program, args, OPTIONS, (option) => {
    if (option.name !== 'trace') asked = option.name;
    return asked !== undefined;
  });
  if (asked === 'help') {
    const { toolHelp } = await import('./help/help-text.ts');
    host.out(toolHelp(host.program, Object.keys(COMMANDS)));
    return 0;
  }
  if (asked === 'version') {
    const { versionText } = await import('./help/version-text.ts');
    host.out(versionText(host.program));
    return 0;
  }
  if (asked === 'demo') return (await import('./demo.ts')).demo(host);
  if (name === undefined) throw new UsageError('Not enough arguments', true);
  if (name === 'completion') return completion(host, rest[0]);
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!load) throw new UsageError(`Command not found: ${name}`, true);
  const command = await load();
  const left = takeGlobalOptions(host, command, rest, await definitionOf(rest));
  if (left) return command.run(left, host);
  const { commandHelp } = await import('./help/help-text.ts');
  host.out(commandHelp(host.program, name));
  return 0;
}

async function completion(host: Host, shell: string | undefined): Promise<number> {
  const { completionScript } = await import('./help/completion.ts');
  const script = completionScript(shell, host.program, Object.keys(COMMANDS));
  if (script === undefined) throw new UsageError('Expecting bash, zsh or fish', true);
  host.out(script);
  return 0;
}

async function main(): Promise<number> {
  const host = nodeHost(process.argv[1]);
  host.nodeNames = new Set();
  const code = await guarded(host);
  host.end();
  return codeOfOutput(host, code);
}

/** Runs the command, and says what goes wrong. */
async function guarded(host: Host): Promise<number> {
  try {
    return await runCommand(host, processArguments());
  } catch (cause) {
    if (cause instanceof UsageError) {
      host.error(cause.message);
      for (const message of cause.further) host.error(message);
      if ('hintText' in cause) host.note(String(cause.hintText));
      if (cause.hint) host.note(`Try '${host.program} --help' for more information\n`);
      return cause.exitCode;
    }
    if (isQcow2Error(cause, 'ABORTED')) {
      dieBySignal(host.interrupted.reason);
      return 1;
    }
    if (!isQcow2Error(cause)) throw cause;
    host.error(cause.message);
    return 1;
  }
}

// Until it is known: a tool that ends without an answer has failed.
process.exitCode = 1;
(runAgain() ?? main()).then(leave);
