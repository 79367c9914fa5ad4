// SPDX-License-Identifier: Apache-2.0

#include "src/registry/reference.h"

#include <gtest/gtest.h>

#include "tests/support/support.h"

namespace msb::registry {
namespace {

const std::string kHex(64, 'a');

TEST(ReferenceTest, ParsesEachPart) {
  const Reference tagged = Reference::Parse("registry.example:5000/team/app:v1.0");
  EXPECT_EQ(tagged.registry, "registry.example:5000");
  EXPECT_EQ(tagged.repository, "team/app");
  EXPECT_EQ(tagged.tag, "v1.0");
  EXPECT_FALSE(tagged.digest);
  EXPECT_EQ(tagged.Target(), "v1.0");
  EXPECT_EQ(tagged.ToString(), "registry.example:5000/team/app:v1.0");

  const Reference by_digest = Reference::Parse("localhost/app@sha256:" + kHex);
  EXPECT_EQ(by_digest.registry, "localhost");
  EXPECT_EQ(by_digest.tag, "latest");
  EXPECT_EQ(by_digest.Target(), "sha256:" + kHex);
  EXPECT_EQ(by_digest.ToString(), "localhost/app@sha256:" + kHex);

  const Reference both = Reference::Parse("[::1]:5000/app:v1@sha256:" + kHex);
  EXPECT_EQ(both.registry, "[::1]:5000");
  EXPECT_EQ(both.tag, "v1");
  EXPECT_EQ(both.Target(), "sha256:" + kHex) << "the digest decides";
}

TEST(ReferenceTest, TheDefaultTagIsLatest) {
  EXPECT_EQ(Reference::Parse("127.0.0.1/app").ToString(), "127.0.0.1/app:latest");
}

TEST(ReferenceTest, AcceptsTheSeparatorsOfRepositories) {
  for (const std::string path :
       {"a", "0", "a.b", "a_b", "a__b", "a-b", "a---b", "a/b/c/d", "a1.b2_c3__d4-e5/f6"}) {
    EXPECT_EQ(Reference::Parse("r.example/" + path).repository, path);
  }
  const std::string longest(255, 'a');
  EXPECT_EQ(Reference::Parse("r.example/" + longest).repository, longest);
  const std::string tag(128, 'T');
  EXPECT_EQ(Reference::Parse("r.example/a:" + tag).tag, tag);
}

void ExpectRefused(const std::string& text, const std::string& problem) {
  EXPECT_MSB_ERROR(Reference::Parse(text), ErrorKind::kInvalidArgument, "reference '", problem,
                   "HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]");
}

TEST(ReferenceTest, RefusesAReferenceWithoutARegistry) {
  for (const std::string text : {"app", "app:v1", "app@sha256:", "team/app", "team/app:v1"}) {
    ExpectRefused(text, "it names no registry");
    ExpectRefused(text, "begin it with the host");
  }
}

TEST(ReferenceTest, ExplainsCommonMistakes) {
  ExpectRefused("", "it is empty");
  ExpectRefused("https://r.example/app", "leave out 'https://'");
  ExpectRefused("r.example/App", "the repository must be in lower case");
  ExpectRefused("R.example/app", "the host must be in lower case");
  ExpectRefused("r.example/a\nb", "control character");
  ExpectRefused("r.example/" + std::string(256, 'a'), "longer than 255 bytes");
  ExpectRefused(std::string(2000, 'a'), "longer than 1024 bytes");
}

TEST(ReferenceTest, RefusesUsersWithoutShowingTheirPasswords) {
  const std::string digest = "@sha256:" + kHex;
  for (const std::string& text :
       {std::string("joe:secret@r.example/app"), std::string("joe:secret@r.example"),
        std::string("https://joe:secret@r.example/app"), std::string("joe:se/secret@r.example/app"),
        std::string("joe:80/secret@r.example:5000/app:v1"), "joe:secret@r.example/app" + digest,
        std::string("joe:se@sha256:/secret@r.example/app"), std::string("secret\n@r.example/app"),
        "joe:secret@r.example/" + std::string(2000, 'a')}) {
    try {
      Reference::Parse(text);
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_TRUE(test::Names(e.what(), {"must not contain a user name", "r.example"}));
      EXPECT_EQ(std::string_view(e.what()).find("secret"), std::string_view::npos) << e.what();
    }
  }
}

TEST(ReferenceTest, DoesNotShowWhatMayBeAPasswordBeforeAMalformedDigest) {
  try {
    Reference::Parse("joe:80/secret@r.example");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_TRUE(test::Names(e.what(), {"@r.example", "is not a digest"}));
    EXPECT_EQ(std::string_view(e.what()).find("secret"), std::string_view::npos) << e.what();
  }
}

TEST(ReferenceTest, RefusesWhatIsNotARepository) {
  for (const std::string path :
       {"",   "/",  "a/", "/a", "a//b",  "..",   "a/../b", "./a", ".a", "a.",
        "-a", "a-", "_a", "a_", "a___b", "a..b", "a._b",   "a b", "ä",  "a%2fb"}) {
    EXPECT_MSB_ERROR(Reference::Parse("r.example/" + path), ErrorKind::kInvalidArgument,
                     "is not a repository");
    EXPECT_FALSE(IsRepository(path)) << path;
  }
}

TEST(ReferenceTest, RefusesWhatIsNotATag) {
  for (const std::string tag : {"", ".a", "-a", "a b", "a:b", "a/b", "ä"}) {
    EXPECT_MSB_ERROR(Reference::Parse("r.example/a:" + tag), ErrorKind::kInvalidArgument,
                     "is not a tag");
  }
  EXPECT_MSB_ERROR(Reference::Parse("r.example/a:" + std::string(129, 'a')),
                   ErrorKind::kInvalidArgument, "is not a tag", "1 to 128");
}

TEST(ReferenceTest, RefusesWhatIsNotASha256Digest) {
  for (const std::string& digest : {std::string(), std::string("sha256:"), "sha256:" + kHex + "a",
                                    "sha256:" + std::string(64, 'A'), "sha512:" + kHex,
                                    "blake3:" + kHex, kHex, "sha256:" + kHex + "@sha256:" + kHex}) {
    EXPECT_MSB_ERROR(Reference::Parse("r.example/a@" + digest), ErrorKind::kInvalidArgument,
                     "is not a digest");
  }
}

TEST(ReferenceTest, RefusesWhatIsNotARegistry) {
  for (const std::string registry :
       {"r.example:",   "r.example:0", "r.example:65536", "r.example:08",
        "r.example:5a", "r..example",  ".example",        "example.",
        "-r.example",   "r-.example",  "r_.example",      "r.example:5:6",
        "[::1",         "[]",          "[:::1]",          "::1",
        "[::1]x",       "[127.0.0.1]", ":5000",           "r.ex ample",
        "r.example?",   "r.example#",  "r.ex\\ample"}) {
    EXPECT_MSB_ERROR(Reference::Parse(registry + "/a"), ErrorKind::kInvalidArgument,
                     "is not a host with an optional port");
    EXPECT_FALSE(IsRegistry(registry)) << registry;
  }
}

TEST(ReferenceTest, KnowsLoopbackAddresses) {
  for (const char* registry : {"localhost", "localhost:5000", "127.0.0.1", "127.0.0.1:5000",
                               "127.255.3.4", "[::1]", "[::1]:5000", "[0:0:0:0:0:0:0:1]"}) {
    EXPECT_TRUE(IsLoopback(registry)) << registry;
  }
  for (const char* registry :
       {"localhost.example", "127.0.0.1.example", "128.0.0.1", "10.0.0.1:5000", "[::2]", "[::]",
        "r.example:127", "127.1", "my-localhost", "0.0.0.0"}) {
    EXPECT_FALSE(IsLoopback(registry)) << registry;
  }
}

}  // namespace
}  // namespace msb::registry
