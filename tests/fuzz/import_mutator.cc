// SPDX-License-Identifier: Apache-2.0
//
// Mutates archives part by part, and mends most of them, so that they are read to their end.

#include <zstd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/base/json.h"
#include "tests/fuzz/archive_mender.h"
#include "tests/fuzz/properties.h"
#include "tests/fuzz/tar_parts.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace msb::fuzz {
namespace {

// Maximum number of bytes that one mutation adds to a part.
constexpr std::size_t kMaxGrowth = 256;

// Maximum number of bytes to decompress for mutation.
constexpr std::size_t kMaxDecompressed = 256 << 10;

using Random = std::minstd_rand;

bool OneIn(Random& random, unsigned n) { return random() % n == 0; }

void Mutate(std::string& text, std::size_t growth) {
  std::string bytes = text;
  bytes.resize(text.size() + growth + 1);  // One more: libFuzzer does not mutate an empty buffer.
  bytes.resize(
      LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(bytes.data()), text.size(), bytes.size()));
  text = std::move(bytes);
}

bool IsJson(const std::string& text) {
  try {
    base::ParseJson(text);
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

// JSON that a mutation has broken is refused at once, so this makes several attempts to keep it
// valid.
void MutateContent(std::string& content) {
  constexpr int kAttempts = 4;
  const bool is_json = IsJson(content);
  std::string mutated;
  for (int i = 0; i < (is_json ? kAttempts : 1); ++i) {
    mutated = content;
    Mutate(mutated, kMaxGrowth);
    if (IsJson(mutated)) break;
  }
  content = std::move(mutated);
}

void MutatePart(TarPart& part, Random& random) {
  if (!OneIn(random, 4)) return MutateContent(part.content);
  const std::size_t size = part.header.size();
  Mutate(part.header, 0);
  part.header.resize(size);
}

void Rearrange(std::vector<TarPart>& parts, Random& random) {
  const std::size_t one = random() % parts.size();
  const std::size_t other = random() % parts.size();
  switch (random() % 3) {
    case 0:
      return std::swap(parts[one], parts[other]);
    case 1:
      parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(one));
      return;
    default:
      parts.insert(parts.begin() + static_cast<std::ptrdiff_t>(one), TarPart(parts[other]));
  }
}

// Splits a plain archive, mutates it and joins it. Returns an empty string if it has no parts.
std::string MutateArchive(std::string_view archive, Random& random) {
  std::vector<TarPart> parts = SplitTar(archive);
  if (parts.empty()) return {};
  if (OneIn(random, 8)) {
    Rearrange(parts, random);
  } else {
    MutatePart(parts[random() % parts.size()], random);
  }
  if (!OneIn(random, 4)) MendArchive(parts);
  return JoinTar(parts);
}

// Returns the content of a frame, or nothing if it is damaged or decompresses to too much.
std::optional<std::string> Decompress(std::string_view frame) {
  std::string archive(kMaxDecompressed, '\0');
  const std::size_t size =
      ZSTD_decompress(archive.data(), archive.size(), frame.data(), frame.size());
  if (ZSTD_isError(size) != 0) return std::nullopt;
  archive.resize(size);
  return archive;
}

std::string Compress(std::string_view archive) {
  std::string frame(ZSTD_compressBound(archive.size()), '\0');
  frame.resize(ZSTD_compress(frame.data(), frame.size(), archive.data(), archive.size(), 1));
  return frame;
}

// Mutates the content of a compressed input, or the input itself if it is not compressed.
std::string MutateInput(std::string_view input, Random& random) {
  const auto archive = Decompress(input);
  if (!archive) return MutateArchive(input, random);
  const std::string mutated = MutateArchive(*archive, random);
  return mutated.empty() ? mutated : Compress(mutated);
}

}  // namespace
}  // namespace msb::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned seed) {
  using namespace msb::fuzz;
  Random random(seed);
  if (!OneIn(random, 8)) {
    const std::string mutated = MutateInput(AsText(data, size), random);
    if (!mutated.empty() && mutated.size() <= max_size) {
      std::copy(mutated.begin(), mutated.end(), data);
      return mutated.size();
    }
  }
  // Mutate the frames themselves, and what SplitTar would correct: padding, sizes and the end.
  size = LLVMFuzzerMutate(data, size, max_size);
  if (!OneIn(random, 4)) MendChecksums({data, size});
  return size;
}
