/** What `info` says of a LUKS header. */
import { luksAlgorithms } from '../format/luks-algorithms.ts';
import type { LuksHeader, LuksKeySlot } from '../format/luks-header.ts';
import type { JsonObject } from './json.ts';

/**
 * Members in the order that they are printed in.
 * @throws Qcow2Error UNSUPPORTED for an algorithm that QEMU has no name for
 */
export function luksReport(header: LuksHeader): JsonObject {
  const { cipher, keyBits, mode, generator, generatorHash, hash } = luksAlgorithms(header);
  return {
    'ivgen-alg': generator,
    'hash-alg': hash,
    'cipher-alg': `${cipher}-${keyBits}`,
    uuid: header.uuid,
    // Only this generator has a hash; what others carry along means nothing.
    'ivgen-hash-alg': generator === 'essiv' ? generatorHash : undefined,
    format: 'luks',
    'cipher-mode': mode,
    slots: header.slots.map(slotMembers),
    'payload-offset': header.payloadOffset,
    'master-key-iters': header.digestIterations,
  };
}

function slotMembers({ active, iterations, keyOffset, stripes }: LuksKeySlot): JsonObject {
  if (!active) return { active, 'key-offset': keyOffset };
  return { active, iters: iterations, 'key-offset': keyOffset, stripes };
}
