// SPDX-License-Identifier: Apache-2.0

#include "src/registry/url.h"

#include <gtest/gtest.h>

namespace msb::registry {
namespace {

TEST(UrlTest, ParsesEachPart) {
  const auto url = Url::Parse("HTTPS://R.Example:5000/v2/a?x=1&y=%20#part");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->scheme, "https");
  EXPECT_EQ(url->host, "r.example");
  EXPECT_EQ(url->port, 5000);
  EXPECT_EQ(url->path, "/v2/a");
  EXPECT_EQ(url->query, "x=1&y=%20");
  EXPECT_EQ(url->ToString(), "https://r.example:5000/v2/a?x=1&y=%20");
  EXPECT_EQ(url->Origin(), "https://r.example:5000");
  EXPECT_EQ(Url::Parse("http://[::1]")->ToString(), "http://[::1]/");
  EXPECT_EQ(Url::Parse("http://[::1]:80?x")->ToString(), "http://[::1]/?x");
  EXPECT_EQ(Url::Parse("https://r.example")->port, 443);
}

TEST(UrlTest, AcceptsWhatStorageServersUse) {
  for (const std::string text : {"https://my_bucket.storage.example/a?x={1}|2^3`",
                                 "https://storage.example/a%20b?c=d/e?f:g@h"}) {
    ASSERT_TRUE(Url::Parse(text)) << text;
    EXPECT_EQ(Url::Parse(text)->ToString(), text);
  }
}

TEST(UrlTest, RefusesWhatIsNotAnHttpUrl) {
  for (const std::string text : {"",
                                 "r.example/a",
                                 "/a",
                                 "//r.example/a",
                                 "ftp://r.example/",
                                 "file:///etc/passwd",
                                 "http:/a",
                                 "http://",
                                 "http:///a",
                                 "http://joe@r.example/",
                                 "http://joe:secret@r.example/",
                                 "http://r.example:0/",
                                 "http://r.example:70000/",
                                 "http://r.example:x/",
                                 "http://r.example/a b",
                                 "http://r.example/a\r\nHost: x",
                                 "http://r.example\\@evil/",
                                 "http://r.example/ä",
                                 "http://[::1/",
                                 "http://r..example/",
                                 "http://r.example:5000:1/"}) {
    EXPECT_FALSE(Url::Parse(text)) << text;
  }
  EXPECT_TRUE(Url::Parse("http://r.example/" + std::string(16000, 'a')));
  EXPECT_FALSE(Url::Parse("http://r.example/" + std::string(17000, 'a')));
}

TEST(UrlTest, ResolvesLocations) {
  const Url base = *Url::Parse("https://r.example:5000/v2/a/blobs/uploads/?q=1");
  const auto resolved = [&](const std::string& location) {
    const auto url = base.Resolve(location);
    return url ? url->ToString() : "none";
  };
  EXPECT_EQ(resolved("/v2/x?state=1"), "https://r.example:5000/v2/x?state=1");
  EXPECT_EQ(resolved("http://other.example/x"), "http://other.example/x");
  EXPECT_EQ(resolved("//other.example/x"), "https://other.example/x");
  EXPECT_EQ(resolved("123"), "https://r.example:5000/v2/a/blobs/uploads/123");
  EXPECT_EQ(resolved("?state=2"), "https://r.example:5000/v2/a/blobs/uploads/?state=2");
  EXPECT_EQ(resolved("/x?u=http://y"), "https://r.example:5000/x?u=http://y");
  EXPECT_EQ(resolved("ftp://other.example/x"), "none");
  EXPECT_EQ(resolved("javascript:x"), "none");
  EXPECT_EQ(resolved("/a b"), "none");
}

TEST(UrlTest, ComparesOrigins) {
  const Url base = *Url::Parse("https://r.example/a");
  for (const char* same : {"https://r.example/", "https://R.EXAMPLE:443/b?c"}) {
    EXPECT_TRUE(base.SameOrigin(*Url::Parse(same))) << same;
  }
  for (const char* other : {"http://r.example/", "https://r.example:444/", "https://s.example/",
                            "https://r.example.evil/"}) {
    EXPECT_FALSE(base.SameOrigin(*Url::Parse(other))) << other;
  }
}

TEST(UrlTest, EncodesParameters) {
  const Url url = *Url::Parse("https://r.example/a");
  EXPECT_EQ(url.WithParameter("digest", "sha256:ab").ToString(),
            "https://r.example/a?digest=sha256%3Aab");
  EXPECT_EQ(url.WithParameter("a", "1&b=2 ä").WithParameter("c", "").query,
            "a=1%26b%3D2%20%C3%A4&c=");
}

}  // namespace
}  // namespace msb::registry
