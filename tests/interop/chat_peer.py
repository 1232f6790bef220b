"""Talks to the example `chat`: python3 chat_peer.py tcp://127.0.0.1:9001 unix:///tmp/chat.sock

The first endpoint takes the members who talk, the last one the member who does not read. Python 3 and its standard
library only.
"""

import sys

from peer import connect, expect


class Member:
    def __init__(self, endpoint, nick):
        self.nick = nick
        self.sock = connect(endpoint)
        self.lines = self.sock.makefile("r", encoding="utf-8", newline="\n")
        self.expect_start("* welcome, guest")
        self.expect_start("* in lobby: ")
        self.say(f"/nick {nick}")
        self.expect(f"* you are now {nick}")

    def say(self, text):
        self.sock.sendall(f"{text}\n".encode())

    def expect(self, wanted):
        expect(self.lines.readline(), f"{wanted}\n", self.nick)

    def expect_start(self, wanted):
        line = self.lines.readline()
        expect(line[: len(wanted)], wanted, self.nick)
        return line

    def skip_to(self, wanted):
        """Reads until a line that is `wanted`; how many came before it."""
        for count, line in enumerate(self.lines):
            if line == f"{wanted}\n":
                return count
        sys.exit(f"{self.nick}: the server ended before {wanted!r}")


def talk(endpoint):
    ann = Member(endpoint, "ann")
    ann.say("/join tea")
    ann.expect("* in tea: ann")
    bob = Member(endpoint, "bob")
    bob.say("/nick ANN")
    bob.expect("* the name ANN is taken")
    bob.say("/join tea")
    bob.expect("* in tea: ann, bob")
    ann.expect("* bob has joined")

    ann.say("hello, bob")
    bob.expect("<ann> hello, bob")
    bob.say("\x1b[2J\u202ehello, ann\r")
    ann.expect("<bob> \\u{1b}[2J\\u{202e}hello, ann")

    bob.say("/nick rob")
    bob.expect("* you are now rob")
    ann.expect("* bob is now rob")
    ann.say("/who")
    ann.expect("* in tea: ann, rob")
    ann.say("/rooms")
    ann.expect("* rooms: tea (2)")

    bob.say("/leave")
    bob.expect("* you have left tea")
    ann.expect("* rob has left")
    bob.say("anybody?")
    bob.expect("* you are in no room; /join one")
    bob.say("/quit")
    bob.expect("* goodbye")
    expect(bob.lines.readline(), "", "after /quit")

    ann.say("/leave")
    ann.expect("* you have left tea")
    ann.say("/rooms")
    ann.expect("* there are no rooms")
    print(f"ok: two members over {endpoint}")


def too_slow(endpoint, slow_endpoint):
    """One member does not read; the others see no delay, and hear of the end."""
    members = []
    for where, nick in (endpoint, "talker"), (endpoint, "reader"), (slow_endpoint, "slow"):
        members.append(Member(where, nick))
        members[-1].say("/join busy")
        members[-1].expect_start("* in busy: ")
    talker, reader, slow = members
    talker.expect("* reader has joined")
    talker.expect("* slow has joined")
    reader.expect("* slow has joined")
    text = "x" * 900
    for _ in range(2000):
        talker.say(text)
        reader.skip_to(f"<talker> {text}")
    talker.skip_to("* slow was too slow to follow, and was dropped")
    talker.say("/who")
    talker.expect("* in busy: talker, reader")
    slow.sock.close()
    print(f"ok: a member who does not read, over {slow_endpoint}")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for endpoint in sys.argv[1:]:
        talk(endpoint)
    too_slow(sys.argv[1], sys.argv[-1])


main()
