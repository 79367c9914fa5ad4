#include <cstdio>

#include "msb/msb.h"

int main(int, char** argv) {
  msb::Client client({.home = argv[1], .backend = "local"});
  const auto snapshots = msb::Snapshot::List(msb::Context::Background(), client);
  std::printf("msb %s: %zu snapshots\n", MSB_VERSION_STRING, snapshots.size());
  try {
    msb::Snapshot::Open(msb::Context::Background(), "nothing", client);
  } catch (const msb::Error& e) {
    return msb::IsKind(e, msb::ErrorKind::kSnapshotNotFound) ? 0 : 1;
  }
  return 1;
}
