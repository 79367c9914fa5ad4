// SPDX-License-Identifier: Apache-2.0

#include "src/base/base64.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cstddef>

namespace msb::base {
namespace {

const unsigned char* Unsigned(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

unsigned char* Unsigned(std::string& text) { return reinterpret_cast<unsigned char*>(text.data()); }

}  // namespace

std::string Base64Encode(std::string_view bytes) {
  // OpenSSL adds a zero byte, which is where the string has its own.
  std::string text((bytes.size() + 2) / 3 * 4, '\0');
  EVP_EncodeBlock(Unsigned(text), Unsigned(bytes), static_cast<int>(bytes.size()));
  return text;
}

std::optional<std::string> Base64Decode(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::string bytes(text.size() / 4 * 3, '\0');
  if (EVP_DecodeBlock(Unsigned(bytes), Unsigned(text), static_cast<int>(text.size())) < 0) {
    return std::nullopt;
  }
  // OpenSSL decodes the padding as zeros.
  const std::string_view end = text.substr(text.size() - std::min<std::size_t>(text.size(), 2));
  bytes.resize(bytes.size() - static_cast<std::size_t>(std::ranges::count(end, '=')));
  // It also ignores spaces, and bits that pad and are not 0.
  if (Base64Encode(bytes) != text) return std::nullopt;
  return bytes;
}

}  // namespace msb::base
