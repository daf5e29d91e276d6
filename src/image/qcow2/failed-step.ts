/** Steps that have names: where the host refuses what one asks for, the error says which it was. */
import { isQcow2Error, Qcow2Error } from '../../base/errors.ts';
import { errnoText } from '../../storage/node-error.ts';

/**
 * Takes a step.
 * @param name what could not be done, as QEMU says it; what the host said follows
 * @throws Qcow2Error
 */
export async function inStep<T>(name: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (cause) {
    if (!isQcow2Error(cause, 'IO', 'NO_SPACE')) throw cause;
    throw new Qcow2Error(cause.code, `${name}: ${hostWords(cause)}`, cause.at, cause.cause);
  }
}

/** What the host said, without the words for what was asked of it. */
function hostWords({ message, cause }: Qcow2Error): string {
  return cause === undefined ? message : errnoText(cause);
}
