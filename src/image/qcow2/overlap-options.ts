/**
 * Which metadata is guarded against writes that are meant for something else: QEMU's options
 * `overlap-check` (a level) and `overlap-check.KIND` (one kind, on or off), with its defaults.
 *
 *   constant  what takes no look-up: header, active L1, refcount table, snapshot table, bitmap
 *             directory
 *   cached    and what is in memory anyway: active L2 tables, refcount blocks, inactive L1 tables
 *   all       and the L2 tables of snapshots, which are read when the image is opened
 */
/** Levels, by the names that QEMU gives them. */
export const OVERLAP_LEVELS = ['none', 'constant', 'cached', 'all'] as const;
export type OverlapLevel = (typeof OVERLAP_LEVELS)[number];

/** Kinds of metadata by QEMU's names, with the lowest level that guards each. */
const KINDS = {
  'main-header': 'constant',
  'active-l1': 'constant',
  'active-l2': 'cached',
  'refcount-table': 'constant',
  'refcount-block': 'cached',
  'snapshot-table': 'constant',
  'inactive-l1': 'cached',
  'inactive-l2': 'all',
  'bitmap-directory': 'constant',
} as const satisfies Record<string, OverlapLevel>;

/** A kind of metadata that can be guarded. */
export type GuardedKind = keyof typeof KINDS;

/** What is guarded: a level, or one with exceptions. */
export type OverlapOptions =
  | OverlapLevel
  | ({ readonly template?: OverlapLevel } & { readonly [kind in GuardedKind]?: boolean });

/** The kinds that are guarded; `cached` where nothing is said. */
export function guardedKinds(options: OverlapOptions = 'cached'): ReadonlySet<GuardedKind> {
  const { template = 'cached', ...single } =
    typeof options === 'string' ? { template: options } : options;
  const level = OVERLAP_LEVELS.indexOf(template);
  const guarded = new Set<GuardedKind>();
  for (const kind of Object.keys(KINDS) as GuardedKind[]) {
    const exception = (single as { readonly [kind in GuardedKind]?: boolean })[kind];
    if (exception ?? OVERLAP_LEVELS.indexOf(KINDS[kind]) <= level) guarded.add(kind);
  }
  return guarded;
}
