// SPDX-License-Identifier: Apache-2.0

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "src/artifact/manifest_json.h"
#include "src/artifact/merkle.h"
#include "src/base/fields.h"
#include "src/base/text.h"

namespace msb::artifact {

using base::Fields;
using base::Json;
using base::Malformed;

Integrity ReadIntegrity(const Json& value, const std::string& path,
                        std::optional<std::uint64_t>& size) {
  const Fields any(value, path, {"algorithm"}, Fields::Others::kIgnore);
  const std::string algorithm = any.Text("algorithm");
  if (algorithm != kFileMerkle) {
    if (algorithm != kSha256 && algorithm != kSparseSha256) {
      Malformed(any.PathOf("algorithm"),
                fmt::format("must be a supported algorithm, but is '{}'", base::Quoted(algorithm)));
    }
    const Fields plain(value, path, {"algorithm", "digest"}, Fields::Others::kRefuse);
    return {algorithm, plain.Digest("digest", "sha256")};
  }
  const Fields merkle(value, path, {"algorithm", "root", "logical_size", "leaf_size"},
                      Fields::Others::kRefuse);
  merkle.Expect("leaf_size", std::uint64_t{kMerkleLeafBytes});
  const std::uint64_t logical_size = merkle.Size("logical_size");
  if (size.value_or(logical_size) != logical_size) {
    Malformed(merkle.PathOf("logical_size"),
              fmt::format("is {}, but the file has {}", logical_size, base::Count(*size, "byte")));
  }
  size = logical_size;
  return {algorithm, merkle.Digest("root", "blake3")};
}

void AppendIntegrity(std::string& out, const std::optional<Integrity>& integrity,
                     std::uint64_t size) {
  if (!integrity) {
    out += "null";
    return;
  }
  out += R"({"algorithm":)";
  base::AppendJsonString(out, integrity->algorithm);
  if (integrity->algorithm == kFileMerkle) {
    out += fmt::format(R"(,"root":"{}","logical_size":{},"leaf_size":{}}})", integrity->digest,
                       size, kMerkleLeafBytes);
  } else {
    out += fmt::format(R"(,"digest":"{}"}})", integrity->digest);
  }
}

}  // namespace msb::artifact
