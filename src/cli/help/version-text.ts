/** What `--version` prints. */
import { VERSION } from '../version.ts';

/** One line for `--version`. */
export function versionText(program: string): string {
  return `${program} version ${VERSION}\n`;
}
