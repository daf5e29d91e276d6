/** What `--version` prints. */
import { VERSION } from '../version.ts';

/**
 * QEMU's version whose tools these stand in for. Programs ask a tool of that name for it, and leave
 * out what old ones do not have (`-U`, LUKS), or refuse to work with them.
 */
const QEMU_VERSION = '7.2.0';

/** One line for `--version`. */
export function versionText(program: string): string {
  const stands = program.startsWith('qemu-');
  return `${program} version ${stands ? `${QEMU_VERSION} (qcow2 ${VERSION})` : VERSION}\n`;
}
