/** One run of `qcow2-io`: commands from the command line, or from standard input. */
import { parseSettings } from '../settings.ts';
import type { ToolRequest } from './command-line.ts';
import { runLine } from './commands.ts';
import type { IoHost } from './io-host.ts';
import { openNow } from './open-close.ts';
import { Session } from './session.ts';

/**
 * @returns the exit code: 1 where a command failed
 * @throws CommandFailure where the disk of the command line cannot be opened
 */
export async function runRequest(
  host: IoHost,
  { commands, filename, flags, imageOptions }: ToolRequest,
): Promise<number> {
  const session = new Session(host, { imageOptions });
  if (filename !== undefined) {
    const settings = imageOptions ? parseSettings(host, filename) : undefined;
    await openNow(session, imageOptions ? undefined : filename, { ...flags, settings });
  }
  if (commands.length > 0) {
    for (const line of commands) {
      if (!session.done) await runLine(session, line);
    }
  } else await runScript(session);
  await session.close();
  return session.failed ? 1 : 0;
}

/** Takes lines from standard input, a prompt before each. */
async function runScript(session: Session): Promise<void> {
  const { host } = session;
  while (!session.done) {
    host.out(`${host.program}> `);
    const line = host.readLine();
    if (line === undefined) return;
    await runLine(session, line);
  }
}
