//! Kairos: four small trading services, the payload Plimsoll ships.
