// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes the parsers of snapshot.json, releases 0.7.x, and of the small documents beside it.

#include <cstddef>
#include <cstdint>

#include "tests/fuzz/properties.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace msb;
  using namespace msb::fuzz;
  const std::string_view input = AsText(data, size);
  constexpr auto kForm = artifact::ManifestForm::kLayered;
  if (const auto parsed =
          Accepted([&] { return artifact::ParseManifest(kForm, input, kOrigin); })) {
    CheckParsed(*parsed, kForm);
    Require(parsed->digest == base::Sha256Digest(input), "the digest is of the bytes as they are");
    Require(!parsed->snapshot_id.empty(), "there is a snapshot id");
  }
  Accepted([&] { return artifact::ParseLayeredMetadata(input, kOrigin); });
  const auto member = Accepted([&] { return artifact::ParseGroupMember(input, kOrigin); });
  Require(!member || !member->empty(), "a member has a name");
  const auto head = Accepted([&] { return artifact::ParseGroupHead(input, kOrigin); });
  Require(!head || !head->empty(), "a head has an id");
  return 0;
}
