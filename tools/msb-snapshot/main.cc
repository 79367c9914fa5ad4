// SPDX-License-Identifier: Apache-2.0
//
// msb-snapshot: disk snapshots of microVM sandboxes on the command line.

#include "tools/msb-snapshot/run.h"

int main(int argc, char** argv) { return msb::program::Main(argc, argv); }
