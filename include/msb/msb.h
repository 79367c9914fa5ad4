// SPDX-License-Identifier: Apache-2.0
//
// msb: disk snapshots of microVM sandboxes. This header includes the complete API.

#ifndef MSB_MSB_H_
#define MSB_MSB_H_

#include "msb/artifact.h"
#include "msb/client.h"
#include "msb/context.h"
#include "msb/disk.h"
#include "msb/error.h"
#include "msb/exec.h"
#include "msb/handle.h"
#include "msb/registry.h"
#include "msb/sandbox.h"
#include "msb/snapshot.h"
#include "msb/version.h"
#include "msb/vmm/backend.h"
#include "msb/vmm/qemu.h"

#endif  // MSB_MSB_H_
