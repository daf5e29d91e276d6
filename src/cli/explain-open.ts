/** What goes wrong while an image is opened, in the words of QEMU's tools. */
import { isQcow2Error, type Qcow2Error } from '../base/errors.ts';
import { UsageError } from './command.ts';
import { HintedError } from './option-list.ts';

/** Runs `open`, and turns what goes wrong into one line: `Could not open 'FILE': why`. */
export async function explainOpen<T>(filename: string, open: () => Promise<T>): Promise<T> {
  try {
    return await open();
  } catch (cause) {
    if (!isQcow2Error(cause) && !(cause instanceof HintedError)) throw cause;
    const message = `Could not open '${filename}': ${cause.message}`;
    const hint = cause instanceof HintedError ? cause.hintText : repairHint(cause);
    throw hint === undefined ? new UsageError(message) : new HintedError(message, hint);
  }
}

/** What to do about an image that cannot be opened as it is. */
export function repairHint({ message, cause }: Qcow2Error): string | undefined {
  if (cause instanceof HintedError) return cause.hintText;
  let what: string | undefined;
  if (message.startsWith('Too much extra metadata in snapshot')) what = 'this extra metadata';
  const { overhanging } = (cause ?? {}) as { overhanging?: number };
  if (overhanging !== undefined) what = `all ${overhanging} overhanging snapshots`;
  // Of an image behind another.
  if (what === undefined && isQcow2Error(cause)) return repairHint(cause);
  return what && `You can force-remove ${what} with qemu-img check -r all\n`;
}
