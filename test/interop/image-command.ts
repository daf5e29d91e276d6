/** One command of the tool, run in this process and by qemu-img, in a folder. Node only. */
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { type Command, type Host, UsageError } from '../../src/cli/command.ts';
import { definitionOf, takeGlobalOptions } from '../../src/cli/global-options.ts';
import { nodeHost } from '../../src/cli/host-node.ts';
import type { NodeFileStorage } from '../../src/storage/node-file.ts';
import { requireQemu } from '../oracle.ts';
import { run } from '../tool.ts';

/** What a run printed, and how it ended. */
export interface Outcome {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

const realHost = nodeHost('qemu-img');
const HINT = "Try 'qemu-img --help' for more information\n";

/**
 * The command in this process, with names of files read in a folder.
 * @param wrap what it is given in place of a file that it opens
 */
export async function ours(
  command: Command,
  folder: string,
  args: readonly string[],
  wrap: (file: NodeFileStorage) => NodeFileStorage = (file) => file,
): Promise<Outcome> {
  const printed = { out: '', err: '' };
  const ends: (() => void)[] = [];
  const inFolder = (path: string) =>
    path === '' || path.startsWith('/') ? path : `${folder}/${path}`;
  const strip = (text: string) => text.replaceAll(`${folder}/`, '');
  const host: Host = Object.assign(Object.create(realHost), {
    out: (text: string) => void (printed.out += text),
    tell: (text: string) => void (printed.out += text),
    error: (message: string) => void (printed.err += `qemu-img: ${strip(message)}\n`),
    note: (text: string) => void (printed.err += strip(text)),
    atEnd: (work: () => void) => void ends.push(work),
    openFile: (path: string, options: object) => {
      const file = realHost.openFile(inFolder(path), options);
      return wrap(Object.defineProperty(file, 'name', { value: path }));
    },
    exists: (path: string) => realHost.exists(inFolder(path)),
    remove: (path: string) => realHost.remove(inFolder(path)),
    realPath: (path: string) => realHost.realPath(inFolder(path)),
  });
  const carryOut = async () => {
    try {
      const left = takeGlobalOptions(host, command, args, await definitionOf(args));
      assert.ok(left, 'nothing here asks for help');
      return await command.run(left, host);
    } catch (cause) {
      if (!(cause instanceof UsageError) && !isQcow2Error(cause)) throw cause;
      host.error(cause.message);
      for (const more of cause instanceof UsageError ? cause.further : []) host.error(more);
      if (cause instanceof UsageError && cause.hint) host.note(HINT);
      return cause instanceof UsageError ? cause.exitCode : 1;
    }
  };
  const code = await carryOut();
  for (const work of ends) work();
  return { code, ...printed };
}

/** The same by qemu-img. */
export async function theirs(
  name: string,
  folder: string,
  args: readonly string[],
): Promise<Outcome> {
  const { code, stdout, stderr } = await run(requireQemu().img, [name, ...args], {
    cwd: folder,
  });
  return { code, out: stdout.toString(), err: stderr };
}
