/** What goes wrong while an image is opened, in the words of QEMU's tools. */
import { isQcow2Error } from '../base/errors.ts';
import { UsageError } from './command.ts';
import { HintedError } from './option-list.ts';

/** Runs `open`, and turns what goes wrong into one line: `Could not open 'FILE': why`. */
export async function explainOpen<T>(filename: string, open: () => Promise<T>): Promise<T> {
  try {
    return await open();
  } catch (cause) {
    if (!isQcow2Error(cause) && !(cause instanceof HintedError)) throw cause;
    const error = new UsageError(`Could not open '${filename}': ${cause.message}`);
    throw cause instanceof HintedError ? Object.assign(error, { hintText: cause.hintText }) : error;
  }
}
