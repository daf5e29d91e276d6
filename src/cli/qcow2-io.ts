/** `qcow2-io`: what qemu-io is to QEMU. Reads and writes disks by command, for people and tests. */

import { isQcow2Error } from '../base/errors.ts';
import { runAgain } from './address-space.ts';
import { codeOfOutput, leave, nodeHost } from './host-node.ts';
import { runTool } from './io/command-line.ts';
import { CommandFailure } from './io/io-command.ts';
import { ioHost } from './io/io-host.ts';
import { processArguments } from './process-arguments.ts';

async function main(): Promise<number> {
  const host = ioHost(nodeHost(process.argv[1]));
  try {
    return codeOfOutput(host, await runTool(host, processArguments()));
  } catch (cause) {
    if (!(cause instanceof CommandFailure) && !isQcow2Error(cause)) throw cause;
    host.error(cause.message);
    if (cause instanceof CommandFailure && cause.hint !== '') host.note(cause.hint);
    return 1;
  }
}

// Until it is known: a tool that ends without an answer has failed.
process.exitCode = 1;
const waits = () => {
  process.stderr.write('qcow2-io: nothing is left that this command could wait for\n');
};
process.once('beforeExit', waits);
(runAgain() ?? main()).then((code) => {
  process.off('beforeExit', waits);
  leave(code);
});
