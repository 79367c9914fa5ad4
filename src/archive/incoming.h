// The snapshots of an archive as they arrive: what each still lacks, and how they hang together.
//
// All functions throw kSnapshotIntegrity for what cannot be.

#ifndef MSB_SRC_ARCHIVE_INCOMING_H_
#define MSB_SRC_ARCHIVE_INCOMING_H_

#include <deque>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "src/archive/member.h"
#include "src/artifact/manifest.h"

namespace msb::archive {

struct IncomingSnapshot {
  std::string directory = {};  // The artifact's, in the archive and then in the destination.
  std::string id = {};         // Its digest; kLayered: its snapshot id.
  artifact::Manifest manifest = {};
  std::string manifest_path = {};      // Of the member.
  std::string manifest_digest = {};    // SHA-256 of the member's bytes.
  std::set<std::string> awaited = {};  // Payloads that have not arrived.
};

class IncomingSnapshots {
 public:
  // Adds the snapshot whose manifest is the member at path with these bytes.
  IncomingSnapshot& Add(Layout layout, const MemberPath& path, std::string_view member_path,
                        std::string_view bytes);
  // The one in this directory.
  IncomingSnapshot& At(std::string_view directory);
  // Those that a payload belongs to, which has arrived now; not empty.
  std::vector<IncomingSnapshot*> Arrived(const MemberPath& path);

  bool empty() const { return snapshots_.empty(); }

  // All, parents first, the head last. Call when all members have arrived.
  std::vector<const IncomingSnapshot*> InOrder() const;

 private:
  std::deque<IncomingSnapshot> snapshots_;  // In the order of their arrival.
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_INCOMING_H_
