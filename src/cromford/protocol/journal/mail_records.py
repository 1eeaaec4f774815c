"""What is remembered of mail: that a letter was taken, with all that it said."""

from cromford.protocol.journal.mail import AnyMail
from cromford.protocol.journal.record import Record


class MailTaken(Record, frozen=True, kw_only=True, tag="mail_taken"):
    """A letter of another stream was taken: the receiver's cursor for its sender goes up by one."""

    sender: str
    number: int
    mail: AnyMail
