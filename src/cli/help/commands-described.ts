/** The commands and their options, in words. `FILE` stands for a name that shells complete. */
import type { CommandLines, OptionLine } from './description.ts';

const FORMAT: OptionLine = [
  '-f --format=FMT',
  'format of the image: raw, qcow2 or luks; found out from its content where not given',
];
const QUIET: OptionLine = ['-q --quiet', 'say nothing but what goes wrong'];
const PROGRESS: OptionLine = ['-p --progress', 'show progress'];
const SHARE: OptionLine = ['-U --force-share', 'open although another process may be writing'];
const OUTPUT: OptionLine = ['--output=human|json', 'for people, or for programs'];
const UNTRUSTED: OptionLine = [
  '--untrusted',
  "names inside an image may not leave that image's folder",
];
const CACHE: OptionLine = ['-t --cache=CACHE', 'how the image that is written is cached'];
const RATE: OptionLine = ['-r --rate=RATE', 'bytes a second, at most'];

/** All commands that there are. */
export const COMMANDS_DESCRIBED: Readonly<Record<string, CommandLines>> = {
  amend: {
    summary: 'change what a qcow2 or LUKS image was made with',
    operands: ['-o OPTIONS FILE'],
    options: [
      ['-o --options=OPTIONS', 'what to change: NAME=VALUE,… (-o help lists them)'],
      FORMAT,
      CACHE,
      ['--force', 'change key slots although that may lock everybody out'],
      PROGRESS,
      QUIET,
      UNTRUSTED,
    ],
  },
  bitmap: {
    summary: 'change or list persistent dirty bitmaps',
    operands: ['FILE BITMAP', '--list FILE'],
    options: [
      ['--add', 'make a bitmap'],
      ['--remove', 'remove it'],
      ['--clear', 'clear all of its bits'],
      ['--enable', 'let it follow what is written'],
      ['--disable', 'let it be as it is'],
      ['--merge=SOURCE', 'set the bits that are set in bitmap SOURCE'],
      ['-g --granularity=SIZE', 'with --add: guest bytes of one bit'],
      ['-b --source-file=FILE', 'with --merge: the image that has SOURCE'],
      ['-F --source-format=FMT', 'format of that image'],
      ['--list', 'list the bitmaps'],
      ['--output=human|json', 'with --list: for people, or for programs'],
      FORMAT,
      UNTRUSTED,
    ],
    notes: 'Actions are carried out in the order they are given.',
  },
  check: {
    summary: 'look for errors in an image, and repair it',
    operands: ['FILE'],
    options: [
      ['-r --repair=leaks|all', 'repair: clusters that nothing uses, or whatever is wrong'],
      FORMAT,
      OUTPUT,
      ['-T --cache=CACHE', 'how the image is cached'],
      PROGRESS,
      ['-q --quiet', 'say nothing of what was found but by the exit code'],
      SHARE,
      UNTRUSTED,
    ],
    notes:
      'The exit code is 0 for a sound image, 1 where it could not be checked, 2 for a corrupt ' +
      'one, 3 for leaked clusters, 63 for a format that has no checks.',
  },
  commit: {
    summary: 'write what an overlay has into its backing file',
    operands: ['FILE'],
    options: [
      FORMAT,
      ['-b --base=FILE', 'the image of the chain to write into'],
      ['-d --drop', 'leave the overlay as it is'],
      CACHE,
      RATE,
      PROGRESS,
      QUIET,
      UNTRUSTED,
    ],
  },
  compare: {
    summary: 'tell whether two images show the same disk',
    operands: ['FILE1 FILE2'],
    options: [
      ['-f --format=FMT', 'format of the first image'],
      ['-F --second-format=FMT', 'format of the second image'],
      ['-s --strict', 'sizes and allocation must be the same, too'],
      ['-T --source-cache=CACHE', 'how the images are cached'],
      OUTPUT,
      PROGRESS,
      QUIET,
      SHARE,
      UNTRUSTED,
    ],
    notes: 'The exit code is 0 for equal disks, 1 for others, more where an image fails.',
  },
  convert: {
    summary: 'write disks, one after another, as a new image',
    operands: ['SOURCE… TARGET', '--batch=LIST'],
    options: [
      ['-f --format=FMT', 'format of the sources'],
      ['-O --output-format=FMT', 'format of the target, raw by default'],
      ['-c --compress', 'compress clusters (qcow2)'],
      ['-o --options=OPTIONS', 'what the target is made with: NAME=VALUE,… (-o help lists them)'],
      ['-B --backing-file=FILE', 'backing file of the target: only what differs is written'],
      ['-F --backing-format=FMT', 'format of that'],
      ['-l --snapshot=SNAPSHOT', 'read a snapshot: ID, name, snapshot.id=… or snapshot.name=…'],
      ['--bitmaps', 'copy the persistent bitmaps of the source'],
      ['--skip-broken-bitmaps', 'with --bitmaps: leave out those that are inconsistent'],
      ['--bitmap=NAME', 'copy only what this bitmap of the source says is dirty'],
      ['-n --no-create', 'write into the image that is there'],
      ['--target-is-zero', 'with -n: the target reads as zeros already'],
      ['-S --sparse-size=SIZE', 'zeros of at least SIZE bytes become holes (4k; 0: none do)'],
      ['-C --copy-range', 'let the host copy what it can'],
      ['-m --threads=N', 'threads, 1 to 16; one a core by default'],
      ['-W --out-of-order', 'accepted: writes are out of order anyway'],
      RATE,
      ['-t --cache=CACHE', 'how the target is cached; all but unsafe flush it'],
      ['-T --source-cache=CACHE', 'how the sources are cached'],
      ['--salvage', 'what cannot be read becomes zeros'],
      ['--target-image-opts', 'the name of the target is a list of options'],
      ['--batch=LIST', 'many conversions: a line of the file LIST for each'],
      ['--output=human|json', 'json: what was done, as one object on standard output'],
      PROGRESS,
      QUIET,
      SHARE,
      UNTRUSTED,
    ],
    notes: 'TARGET may be a file, a block device with -n, or - for standard output.',
  },
  create: {
    summary: 'make an image',
    operands: ['FILE [SIZE]'],
    options: [
      ['-f --format=FMT', 'format of the image, raw by default'],
      ['-o --options=OPTIONS', 'NAME=VALUE,… (-o help lists them)'],
      ['-b --backing-file=FILE', 'backing file; the size is that of it where none is given'],
      ['-F --backing-format=FMT', 'format of the backing file'],
      ['-u --unsafe', 'do not look whether the backing file is there'],
      QUIET,
      UNTRUSTED,
    ],
  },
  info: {
    summary: 'tell what an image is',
    operands: ['FILE'],
    options: [
      FORMAT,
      OUTPUT,
      ['--backing-chain', 'the image and all that it is backed by'],
      SHARE,
      UNTRUSTED,
    ],
  },
  map: {
    summary: 'list where the bytes of a disk are',
    operands: ['FILE'],
    options: [
      FORMAT,
      OUTPUT,
      ['-s --start-offset=SIZE', 'begin here'],
      ['-l --max-length=SIZE', 'list so many bytes'],
      ['--bitmap=NAME', 'list what this bitmap says is dirty'],
      SHARE,
      UNTRUSTED,
    ],
  },
  measure: {
    summary: 'tell how much room an image needs in another format',
    operands: ['[--size=SIZE | FILE]'],
    options: [
      FORMAT,
      ['-O --output-format=FMT', 'format of the target'],
      ['-o --options=OPTIONS', 'what the target is made with: NAME=VALUE,…'],
      ['-l --snapshot=SNAPSHOT', 'read a snapshot: ID, name, snapshot.id=… or snapshot.name=…'],
      ['--size=SIZE', 'bytes of the disk, where there is no image'],
      OUTPUT,
      SHARE,
      UNTRUSTED,
    ],
  },
  rebase: {
    summary: 'give an overlay another backing file',
    operands: ['-b FILE FILE'],
    options: [
      ['-b --backing=FILE', "the new backing file; '' for none"],
      ['-F --backing-format=FMT', 'format of that'],
      ['-u --unsafe', 'change the name only, not what the disk shows'],
      ['-c --compress', 'compress what is copied'],
      FORMAT,
      CACHE,
      ['-T --source-cache=CACHE', 'how the backing files are cached'],
      PROGRESS,
      QUIET,
      SHARE,
      UNTRUSTED,
    ],
  },
  resize: {
    summary: 'change the virtual size of an image',
    operands: ['FILE [+|-]SIZE'],
    options: [
      FORMAT,
      ['--shrink', 'the image may get smaller: what lies beyond its new end is lost'],
      ['--preallocation=off|metadata|falloc|full', 'what new bytes get at once'],
      QUIET,
      UNTRUSTED,
    ],
  },
  snapshot: {
    summary: 'list, take, go back to and delete snapshots within an image',
    operands: ['FILE'],
    options: [
      ['-l --list', 'list the snapshots'],
      ['-c --create=NAME', 'take one'],
      ['-a --apply=SNAPSHOT', 'go back to one: ID or name'],
      ['-d --delete=NAME', 'delete one'],
      ['--output=human|json', 'with -l: for people, or for programs'],
      QUIET,
      SHARE,
      UNTRUSTED,
    ],
  },
};
