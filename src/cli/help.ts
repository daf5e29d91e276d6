/** What `--help` and `--version` print. */
import type { Command } from './command.ts';
import { VERSION } from './version.ts';

/** One line for `--version`. */
export function versionText(program: string): string {
  return `${program} version ${VERSION}\n`;
}

/** The tool's own help. */
export function helpText(program: string, commands: readonly Command[]): string {
  const lines = commands.map(({ usage }) => `  ${usage}`);
  return `${versionText(program)}usage: ${program} [--version] [--help] COMMAND [OPTIONS]

Disk images in QEMU's formats: raw and qcow2.

Commands:
${lines.join('\n')}

Options of all:
  -f FMT          the image's format, raw or qcow2; found out from its content where not given
  -U              open although another process may be writing (check, convert, info)
  --untrusted     names inside an image may not leave that image's folder

Options of convert:
  -O FMT          the target's format: raw
  -o OPTIONS      preallocation=off|falloc|full
  -p              show progress
  -q              say nothing
  -S SIZE         zeros of at least SIZE bytes become holes (default 4k; 0: none do)
  -n              do not create the target: write into what is there
  --target-is-zero  (with -n) the target reads as zeros already
  -l SNAPSHOT     read an internal snapshot: an id, a name, or snapshot.id=…,snapshot.name=…
  -m N            threads, 1 to 16 (default: one a core)
  -W              accepted; writes are out of order anyway
  DST             a file, a block device with -n, or - for standard output

Options of commit:
  -b BASE         write into that image of the chain, not into the first backing file
  -d              leave the image as it is, rather than emptied
  -r RATE         bytes a second, at most
  -p, -q          show progress, say nothing

Options of create:
  -b FILE, -F FMT the backing file and its format
  -u              do not look whether the backing file is there
  -o OPTIONS      NAME=VALUE,… (-o help lists them)
  -q              say nothing

Options of rebase:
  -b FILE, -F FMT the new backing file and its format; -b '': none
  -u              change the name only: the new file shows the same bytes
  -c              what the image takes is compressed
  -p, -q          show progress, say nothing

Options of resize:
  --shrink        the image may get smaller: what lies beyond its new end is lost
  --preallocation=MODE  off, metadata, falloc or full: what new bytes get at once
  -q              say nothing

Options of snapshot:
  -l              list the snapshots (--output=json: for programs)
  -c NAME         take one
  -a SNAPSHOT     go back to one: an id or a name
  -d NAME         delete one

Options of check:
  -r leaks|all    repair: clusters that nothing uses, or whatever is wrong
  --output=human|json
  -p              show progress
  -q              say nothing of what was found but by the exit code
                  0: sound, 1: could not be checked, 2: corrupt, 3: leaks, 63: not qcow2

Options of compare:
  -f FMT, -F FMT  formats of the first and the second image
  -s              what is allocated must be the same, and the sizes
  -p, -q          show progress; say nothing
                  0: identical, 1: different, 2: not opened, 3, 4: not read

Options of map:
  -s, --start-offset=SIZE  from there on
  -l, --max-length=SIZE    so many bytes
  --bitmap=NAME   the ranges that a bitmap says have changed
  --output=human|json

Options of measure:
  --size SIZE     an empty disk of that size
  -l SNAPSHOT     what an internal snapshot of FILE would take
  -O FMT, -o OPTIONS  what the image would be
  --output=human|json

Options of bitmap:
  --add, --remove, --clear, --enable, --disable, --merge SOURCE
                  done in the order they are given
  -g SIZE         (with --add) guest bytes of one bit
  -b FILE, -F FMT (with --merge) the image that has SOURCE
  --list          list the bitmaps (--output=json: for programs)

Options of info:
  --output=human|json
  --backing-chain the image and all that it is backed by

SIZE takes the suffixes k, M, G, T, P and E.
`;
}
