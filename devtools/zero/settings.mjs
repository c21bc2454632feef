// Prints the environment variables of zero-cache, one a line, as its own configuration names them.
import {zeroOptions} from './node_modules/@rocicorp/zero/out/zero-cache/src/config/zero-config.js';

const upper = name => name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase();
const isOption = value => 'type' in value && typeof value.type === 'object' && 'name' in value.type;

for (const [group, value] of Object.entries(zeroOptions)) {
  for (const name of isOption(value) ? [''] : Object.keys(value)) {
    console.log(['ZERO', upper(group), upper(name)].filter(Boolean).join('_'));
  }
}
